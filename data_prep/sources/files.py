"""The user's own parallel text: two plain text files, one sentence a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_prep.config import FilePair, pair_name
from data_prep.normalise import clean_text
from data_prep.records import Record
from mtmoe.errors import DataError
from mtmoe.files import read_lines


def extract_files(entry: FilePair, counts: Counter[str]) -> Iterator[Record]:
    """The pairs of two parallel files, in the order of `pair_name`; empty lines are left out.

    Raises:
        DataError: a file is missing, empty or not UTF-8, or they have different numbers of lines.
    """
    source, target = read_lines(entry.source), read_lines(entry.target)
    if len(source) != len(target):
        raise DataError(
            f"parallel files must have equal numbers of lines, but {entry.source} has "
            f"{len(source)} and {entry.target} has {len(target)}."
        )
    if not any(line.strip() for line in source):
        raise DataError(f"parallel text must not be empty, but {entry.source} is.")
    swapped = pair_name(*entry.pair.split("-")) != entry.pair
    if swapped:
        source, target = target, source
    for first, second in zip(map(clean_text, source), map(clean_text, target), strict=True):
        counts["entries"] += 1
        if first and second:
            counts["pairs"] += 1
            yield Record(first, second, Path(entry.source).name)
        else:
            counts["empty"] += 1
