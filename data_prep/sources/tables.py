"""Parallel text in one file: a table with tabs, or a JSON object a line; packed or not."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_prep.config import pair_name
from data_prep.corpus_settings import COLUMNS, CorpusSettings
from data_prep.records import Record
from data_prep.sources.corpus import Corpus, make_record, swapped
from data_prep.sources.streams import open_lines
from mtmoe.errors import DataError
from mtmoe.files import check_input

Row = tuple[str, str] | str  # the two strings, or why there are none


def table_corpus(settings: CorpusSettings) -> Corpus:
    """The pairs of a .tsv or .jsonl file.

    Raises:
        DataError: the file is not there.
    """
    path = Path(settings.path)
    check_input("corpora.path", path)
    pair = pair_name(*settings.pair.split("-"))
    read = functools.partial(read_table, settings)
    return Corpus(settings.title, pair, settings.licence, {settings.label: path}, read)


def read_table(settings: CorpusSettings, counts: Counter[str]) -> Iterator[Record]:
    """The pairs of a table, in the order of `pair_name`.

    Args:
        counts: see `align`; `columns_differ` counts rows with another number of columns than the
            first, `no_pair` JSON lines without the two strings.

    Raises:
        DataError: the file is damaged or not UTF-8, or no row gives a pair.
    """
    columns = settings.columns or COLUMNS[settings.format] or tuple(settings.pair.split("-"))
    if swapped(settings.pair):
        columns = columns[::-1]
    parse = _tsv_parser(*map(int, columns)) if settings.format == "tsv" else _json_parser(*columns)
    with open_lines(settings.path) as lines:
        for line, fault in lines:
            counts["entries"] += 1
            row = fault or parse(line)
            if isinstance(row, str):
                counts[row] += 1
            elif record := make_record(*row, settings.title, counts):
                yield record
    if not counts["pairs"]:
        raise DataError(
            f"a table must have pairs in its columns {list(columns)}, but {settings.path} has "
            f"none: {dict(counts)}. Check corpora.columns."
        )


def _tsv_parser(first: int, second: int) -> Callable[[str], Row]:
    widths: list[int] = []  # of the first row, by which the others are judged

    def parse(line: str) -> Row:
        cells = line.split("\t")
        widths.append(len(cells)) if not widths else None
        if len(cells) != widths[0] or len(cells) < max(first, second):
            return "columns_differ"
        return cells[first - 1], cells[second - 1]

    return parse


def _json_parser(first: Any, second: Any) -> Callable[[str], Row]:
    def parse(line: str) -> Row:
        try:
            item = json.loads(line)
            texts = (_find(item, str(first)), _find(item, str(second)))
            "".join(texts).encode()  # refuses half of a surrogate pair, and what is no text
        except (ValueError, RecursionError, KeyError, TypeError):
            return "no_pair"
        return texts

    return parse


def _find(item: Any, key: str) -> Any:
    """The value at a key such as `translation.en`."""
    for part in key.split("."):
        item = item[part]
    return item
