"""Plain lines, TSV and JSONL: lines to records, and translations back to lines of the same kind."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from mtmoe.errors import ConfigError, DataError
from mtmoe.inference.records import Record
from mtmoe.inference.text import MAX_LINE_BYTES, RawLine

if TYPE_CHECKING:
    from mtmoe.inference.requests import Translation

SPARE_LEVELS = 100  # of nesting; Python must have them, or it could not write what it has read
KEYS = ("text", "source_lang", "target_lang", "prefix")  # of JSON, and of TSV's columns


@dataclass(frozen=True)
class Format:
    """How lines are read and written.

    Raises:
        ConfigError: the options contradict each other.
    """

    reads_json: bool = False
    writes_json: bool = False
    columns: Mapping[str, int] | None = None  # of TSV, from 1, by name out of `KEYS`
    has_scores: bool = False
    num_best: int = 1

    def __post_init__(self) -> None:
        if self.columns is not None and self.writes_json:
            raise ConfigError("--tsv must be left out with JSON, but is given. Choose one of them.")

    @property
    def names_target(self) -> bool:
        """Whether each line may name the language to write."""
        return self.reads_json or "target_lang" in (self.columns or {})


def parse_columns(option: str) -> dict[str, int]:
    """The columns that `--tsv` names: `2`, or `text=2,target_lang=3`.

    Raises:
        ConfigError: it names none, one twice, or no column of text.
    """
    columns: dict[str, int] = {}
    for part in option.split(","):
        key, _, number = part.strip().rpartition("=")
        key = key or "text"
        if key not in KEYS or key in columns or not number.isdecimal() or int(number) < 1:
            raise ConfigError(
                f"--tsv must be a column, as 2, or columns by name, as text=2,target_lang=3 "
                f"(names are {', '.join(KEYS)}), but is {option!r}. Count columns from 1."
            )
        columns[key] = int(number)
    if "text" not in columns:
        raise ConfigError(f"--tsv must name the column of the text, but is {option!r}. Add text=N.")
    return columns


def read_record(line: RawLine, form: Format) -> Record:
    """What a line holds; what is wrong with it, if something is, stands in its `mistake`."""
    place = line.name, line.number
    if line.is_oversized:
        return Record("", *place, mistake=(
            f"a line must have at most {MAX_LINE_BYTES} bytes, but {line.name} has {line.size}. "
            "Split it."
        ))  # fmt: skip
    text = line.decode()
    if form.columns is not None:
        return _tsv_record(text, place, form.columns)
    if not form.reads_json:
        return Record(text, *place)
    try:
        return _json_record(text, place)
    except DataError as error:
        return Record("", *place, mistake=str(error))


def _tsv_record(line: str, place: tuple[str, int], columns: Mapping[str, int]) -> Record:
    if not line:
        return Record("", *place, is_blank=True)
    cells, wanted = tuple(line.split("\t")), max(columns.values())
    if len(cells) < wanted:
        return Record("", *place, columns=cells, mistake=(
            f"a line must have at least {wanted} columns, but {place[0]} has {len(cells)}. "
            "Correct it, or --tsv."
        ))  # fmt: skip
    found = {key: cells[number - 1] for key, number in columns.items()}
    named: dict[str, Any] = {key: cell for key, cell in found.items() if cell or key == "text"}
    return Record(**named, name=place[0], number=place[1], columns=cells)


def _json_record(line: str, place: tuple[str, int]) -> Record:
    """A line of JSON with the key "text", and maybe the other ones of `KEYS`.

    A value that is no text is a mistake of the record, which keeps the line's own keys.

    Raises:
        DataError: it is no JSON object; names the line.
    """
    if not line.strip():
        return Record("", *place, is_blank=True)
    name = place[0]
    try:
        fields = json.loads(line, parse_constant=_refuse, parse_float=_parse_float)
        if line.count("[") + line.count("{") > SPARE_LEVELS:
            json.loads("[" * SPARE_LEVELS + line + "]" * SPARE_LEVELS)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"a line must be a JSON object, but {name} is none ({error}). Correct it."
        ) from None
    mistake = f'a line must be a JSON object with the key "text", but {name} is not. Correct it.'
    if not isinstance(fields, dict):
        raise DataError(mistake)
    if "text" not in fields:
        return Record("", *place, fields=fields, mistake=mistake)
    found = {key: fields[key] for key in KEYS if fields.get(key) is not None or key == "text"}
    for key, value in found.items():
        if not isinstance(value, str):
            mistake = f"{key} must be a string, but in {name} is {_dump(value):.50}. Correct it."
            return Record("", *place, fields=fields, mistake=mistake)
    return Record(**found, name=name, number=place[1], fields=fields)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _parse_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is too large")
    return number


def write_record(
    record: Record, ranked: Sequence[Translation], form: Format, added: Mapping[str, Any]
) -> str:
    """The lines of one record: one, or with n-best lists as many as were found.

    Where the record has a mistake, its place is kept: by an empty translation, or in JSON by the
    key "error".

    Args:
        ranked: its translations, at least one, best first.
        added: further keys of JSON.
    """
    if record.is_blank:
        return "\n"
    if form.writes_json:
        return _to_json(record, ranked, form, added) + "\n"
    rows = []
    for found in ranked:
        cells = list(record.columns)
        if form.num_best > 1 and form.columns is None:
            cells.append(str(record.number))
        if form.has_scores or form.num_best > 1:
            cells.append(f"{found.score:.6f}")
        rows.append("\t".join([*cells, found.text]) + "\n")
    return "".join(rows)


def _to_json(
    record: Record, ranked: Sequence[Translation], form: Format, added: Mapping[str, Any]
) -> str:
    read = record.fields or ({} if form.reads_json else {"text": record.text})
    if record.mistake:
        return _dump({**read, "error": record.mistake})
    best = [{"translation": t.text, "score": t.score, "words": t.words} for t in ranked]
    ranks = {"n_best": best} if form.num_best > 1 else {}
    read = {key: value for key, value in read.items() if key != "error"}  # of an earlier run
    return _dump({**read, **best[0], **ranks, **added})


def _dump(fields: Any) -> str:
    """One line of JSON; lone surrogates stay escaped, since UTF-8 has none."""
    text = json.dumps(fields, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(fields)
    return text
