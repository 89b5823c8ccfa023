"""Lines of text or of JSON to requests, and translations back to lines of the same kind."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtmoe.errors import DataError

SPACES = re.compile(r"\s+")
KEPT = " \t\n\u00a0\u3000"  # blanks that are written as they were read


@dataclass(frozen=True)
class Record:
    """One line of input."""

    text: str
    source_lang: str | None
    target_lang: str | None
    prefix: str
    name: str  # of its place, in warnings and errors
    fields: dict[str, Any]  # of JSON, to be written again

    @property
    def chunks(self) -> list[str]:
        """Blanks and text in turns, blanks first and last; see `split_blanks`."""
        return split_blanks(self.text)


def split_blanks(text: str) -> list[str]:
    """`text` in an odd number of parts: blanks, text, blanks, ..., blanks; blanks may be empty.

    Blanks are those at both ends, and those inside that hold a tab or a line end: what stands
    between these is a text of its own. Blanks other than `KEPT` read as spaces.
    """
    chunks, last = [""], 0
    for found in SPACES.finditer(text):  # one pass: a line may be 100,000 blanks
        start, end = found.span()
        if start == 0:
            chunks[0] = _clean(found[0])
        elif end == len(text) or "\t" in found[0] or "\n" in found[0]:
            chunks += [text[last:start], _clean(found[0])]
        else:
            continue
        last = end
    return [*chunks, text[last:], ""] if last < len(text) else chunks


def _clean(blanks: str) -> str:
    return "".join(blank if blank in KEPT else " " for blank in blanks)


def plain_record(text: str, name: str) -> Record:
    """A line of plain text."""
    return Record(text, None, None, "", name, {})


def json_record(line: str, name: str) -> Record:
    """A line of JSON with the key "text", and maybe "source_lang", "target_lang" and "prefix".

    Raises:
        DataError: it is no JSON object, or a value is no text; names the line.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"a line must be a JSON object, but {name} is none ({error}). Correct it."
        ) from None
    if not isinstance(fields, dict) or "text" not in fields:
        raise DataError(
            f'a line must be a JSON object with the key "text", but {name} is not. Correct it.'
        )
    for key in ("text", "source_lang", "target_lang", "prefix"):
        if not isinstance(fields.get(key, ""), str):
            kind = type(fields[key]).__name__
            raise DataError(f"{key} must be a string, but in {name} is a {kind}. Correct it.")
    languages = fields.get("source_lang"), fields.get("target_lang")
    return Record(fields["text"], *languages, fields.get("prefix", ""), name, fields)


def to_json(fields: dict[str, Any], added: dict[str, Any]) -> str:
    """One line of JSON; lone surrogates stay escaped, since UTF-8 has none."""
    text = json.dumps({**fields, **added}, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps({**fields, **added})
    return text


def join_blanks(chunks: Sequence[str], translations: Sequence[str]) -> str:
    """`chunks` with `translations` in place of the texts between the blanks."""
    found = list(chunks)
    found[1::2] = translations
    return "".join(found)
