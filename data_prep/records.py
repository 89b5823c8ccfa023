"""Sentence pairs between the steps, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mtmoe.files import open_atomic, read_lines


class Record(NamedTuple):
    """A pair of strings; `first` is in the first language of the pair's name."""

    first: str
    second: str
    origin: str  # package or file that it comes from
    context: str | None = None  # gettext's msgctxt


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write `records`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomic(path) as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read_records(path: Path) -> Iterator[Record]:
    """The records that `write_records` wrote."""
    return (Record(*json.loads(line)) for line in read_lines(path))
