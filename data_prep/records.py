"""Sentence pairs and titled texts between the steps, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mtmoe.errors import DataError
from mtmoe.files import check_input, open_atomic


class Record(NamedTuple):
    """A pair of strings; `first` is in the first language of the pair's name."""

    first: str
    second: str
    origin: str  # package or file that it comes from
    context: str | None = None  # gettext's msgctxt


class Document(NamedTuple):
    """A text with its title in both languages of a pair."""

    first_title: str
    second_title: str
    first_text: str
    second_text: str


def write_records(path: Path, records: Iterable[Record | Document]) -> None:
    """Write `records` one by one, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomic(path) as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read_records(path: Path) -> Iterator[Record]:
    """The records that `write_records` wrote, one by one."""
    return (Record(*values) for values in _read(path))


def read_documents(path: Path) -> Iterator[Document]:
    """The documents that `write_records` wrote, one by one."""
    return (Document(*values) for values in _read(path))


def _read(path: Path) -> Iterator[list[str]]:
    check_input("records", path)
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except ValueError:
                raise DataError(
                    f"records must be JSON, but {path} line {number} is not. Remove the file."
                ) from None
