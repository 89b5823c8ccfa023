"""What every source provides: corpora of one language pair, with licence and provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_prep.config import pair_name
from data_prep.normalise import clean_text, has_control_characters
from data_prep.records import Document, Record


@dataclass(frozen=True)
class Corpus:
    """The text of one pair from one place.

    `read` is given a counter, tells it what came in and why something was left out, and yields the
    records in an order that depends on the files only.
    """

    name: str  # of the source, as the report spells it
    pair: str  # as `pair_name` spells it
    licence: str
    inputs: Mapping[str, Path]  # label in the manifest -> file; their checksums are watched
    read: Callable[[Counter[str]], Iterator[Record | Document]]


def swapped(pair: str) -> bool:
    """Whether `pair_name` names the two languages in the other order."""
    return pair_name(*pair.split("-")) != pair


def make_record(first: str, second: str, origin: str, counts: Counter[str]) -> Record | None:
    """The record of two raw strings; None, and counted as `empty`, if a side has no text."""
    if has_control_characters(first) or has_control_characters(second):
        counts["control_characters"] += 1
    first, second = clean_text(first), clean_text(second)
    if not first or not second:
        counts["empty"] += 1
        return None
    counts["pairs"] += 1
    return Record(first, second, origin)
