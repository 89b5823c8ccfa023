"""The user's own parallel text: two plain text files, one sentence a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_prep.config import FilePair, pair_name
from data_prep.normalise import clean_text, has_control_characters
from data_prep.records import Record
from mtmoe.errors import DataError
from mtmoe.files import check_input, read_lines


def check_files(entries: Iterable[FilePair]) -> None:
    """Refuse files that cannot be read, before anything is made.

    Raises:
        DataError: a file is missing or a folder; names the key of the YAML file.
    """
    for entry in entries:
        check_input(f"files.source of {entry.pair}", entry.source)
        check_input(f"files.target of {entry.pair}", entry.target)


def extract_files(entry: FilePair, counts: Counter[str]) -> Iterator[Record]:
    """The pairs of two parallel files, in the order of `pair_name`; empty lines are left out.

    Args:
        counts: gets how many lines there are, what became of them, and how many had control
            characters.

    Raises:
        DataError: a file is missing, empty or not UTF-8, or they have different numbers of lines.
    """
    source, target = read_lines(entry.source), read_lines(entry.target)
    if len(source) != len(target):
        raise DataError(
            f"parallel files must have equal numbers of lines, but {entry.source} has "
            f"{len(source)} and {entry.target} has {len(target)}. Line n must translate line n."
        )
    if not any(line.strip() for line in source):
        raise DataError(
            f"parallel text must not be empty, but {entry.source} is. Give another file."
        )
    swapped = pair_name(*entry.pair.split("-")) != entry.pair
    if swapped:
        source, target = target, source
    for lines in zip(source, target, strict=True):
        first, second = map(clean_text, lines)
        counts["entries"] += 1
        if any(map(has_control_characters, lines)):
            counts["control_characters"] += 1
        if first and second:
            counts["pairs"] += 1
            yield Record(first, second, Path(entry.source).name)
        else:
            counts["empty"] += 1
