"""Sentence pairs and titled texts between the steps, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mtmoe.errors import DataError
from mtmoe.files import check_input, open_atomic

to_json = json.JSONEncoder(ensure_ascii=False).encode


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
            file.write(to_json(record) + "\n")


def parse_record(line: bytes, path: Path) -> Record:
    """A line that `write_records` wrote.

    Raises:
        DataError: it is none; names `path`.
    """
    return Record(*_parse(line, path))


def parse_document(line: bytes, path: Path) -> Document:
    """See `parse_record`."""
    return Document(*_parse(line, path))


def read_records(path: Path) -> Iterator[Record]:
    """The records that `write_records` wrote, one by one."""
    return (parse_record(line, path) for line in _lines(path))


def read_documents(path: Path) -> Iterator[Document]:
    """The documents that `write_records` wrote, one by one."""
    return (parse_document(line, path) for line in _lines(path))


def _lines(path: Path) -> Iterator[bytes]:
    check_input("records", path)
    with path.open("rb") as file:
        yield from file


def _parse(line: bytes, path: Path) -> list[str]:
    try:
        values: list[str] = json.loads(line)
    except ValueError:
        raise DataError(
            f"records must be JSON, but a line of {path} is not: {line[:40]!r}. Remove the file."
        ) from None
    return values
