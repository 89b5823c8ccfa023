"""One line of input, taken apart: what is translated, and what is written again as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

SPACES = re.compile(r"\s+")
KEPT = " \t\n\u00a0\u3000"  # blanks that are written as they were read


@dataclass(frozen=True)
class Record:
    """One line of input."""

    text: str
    name: str  # of its place, in warnings and errors
    number: int  # in the run, from 1
    source_lang: str | None = None
    target_lang: str | None = None
    prefix: str = ""
    fields: dict[str, Any] = field(default_factory=dict)  # of JSON, to be written again
    columns: tuple[str, ...] = ()  # of TSV, to be written again
    is_blank: bool = False  # a line between those of JSON or TSV, to be written again
    mistake: str = ""  # why it cannot be translated

    @property
    def chunks(self) -> list[str]:
        """Blanks and text in turns, blanks first and last; see `split_blanks`."""
        return [""] if self.mistake or self.is_blank else split_blanks(self.text)


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


def join_blanks(chunks: Sequence[str], translations: Sequence[str]) -> str:
    """`chunks` with `translations` in place of the texts between the blanks."""
    found = list(chunks)
    found[1::2] = translations
    return "".join(found)
