"""Deduplicate and divide rows of any number, in bounded memory.

The rows of a pair are scattered over files by the hash of their first string, so that one file
holds all translations of a string; each file is deduplicated by itself. Rows of train are scattered
anew by the hash that shuffles them, and each of those files is sorted by itself. What stays in
memory are the rows held out.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from data_prep.assign import HASH_RANGE, Hash, Row, deduplicate, make_hash, make_row, order_of
from data_prep.config import SplitSettings
from data_prep.normalise import copy_key
from data_prep.records import read_records
from data_prep.text_files import Marks

FILE_BYTES = 1 << 24  # of the files that are handled in memory
MAX_FILES = 500


class Rules(NamedTuple):
    """How rows are divided."""

    settings: SplitSettings
    max_translations: int
    seed: int
    drop_near_duplicates: bool = False


class Sifted(NamedTuple):
    """The rows of a pair that are held out, and what became of the others."""

    pair: str
    held_out: list[Row]
    counts: dict[str, int]
    files: list[Path]  # rows of train, each file before the next in the final order


def sift(pair: str, source: Path, work: Path, rules: Rules, excluded: Marks) -> Sifted:
    """Deduplicate the records of `source`, and part train from what is held out.

    Args:
        excluded: (language, key) of strings that no split may have.
        work: an empty folder for files that are no longer wanted afterwards but `Sifted.files`.
    """
    hashed = make_hash(rules.seed)
    num_files = min(MAX_FILES, 1 + source.stat().st_size // FILE_BYTES)
    counts: Counter[str] = Counter({"in": 0, "duplicates": 0, "translations": 0})
    rows = (record[:2] for record in read_records(source))
    paths = [work / f"{pair}.{n}.in" for n in range(num_files)]
    parts = scatter(rows, paths, copy_key if rules.drop_near_duplicates else str, hashed)
    held_out: list[Row] = []
    files = [work / f"{pair}.{n}.train" for n in range(num_files)]
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(path.open("w", encoding="utf-8")) for path in files]
        for part in parts:
            for row in _distinct(pair, part, rules, counts):
                if not excluded.isdisjoint(row.marks()):
                    counts["excluded"] += 1
                elif row.region == "train":
                    place = order_of(row, hashed)[0] * num_files // HASH_RANGE
                    _write(opened[place], [*row.texts, *row.keys])
                else:
                    held_out.append(row)
            part.unlink()
    return Sifted(pair, held_out, dict(counts), files)


def scatter(
    rows: Iterable[tuple[str, str]], paths: list[Path], key: Callable[[str], str], hashed: Hash
) -> list[Path]:
    """Write each row to the file that the hash of its first string's key names; the files."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("w", encoding="utf-8")) for path in paths]
        for row in rows:
            _write(files[hashed(key(row[0])) % len(files)], row)
    return paths


def _write(file: IO[str], row: Iterable[str]) -> None:
    file.write(json.dumps(list(row)) + "\n")


def _read(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _distinct(pair: str, part: Path, rules: Rules, counts: Counter[str]) -> Iterator[Row]:
    hashed = make_hash(rules.seed)
    texts = [(first, second) for first, second in _read(part)]
    distinct = deduplicate(texts, rules.max_translations, hashed)
    unique = len(set(texts))
    counts["in"] += len(texts)
    counts["duplicates"] += len(texts) - unique
    counts["translations"] += unique - len(distinct)
    known: set[tuple[str, str]] = set()
    for texts_of_row in distinct:
        row = make_row(pair, texts_of_row, rules.settings, hashed)
        if rules.drop_near_duplicates and row.keys in known:
            counts["near_duplicates"] += 1
            continue
        known.add(row.keys)
        yield row


def train_rows(
    sifted: Sifted, forbidden: set[tuple[str, str]], seed: int, counts: Counter[str]
) -> Iterator[Row]:
    """The rows of train in their final order, without those that share a key with `forbidden`.

    Args:
        forbidden: (language, key) of what is held out.
        counts: gets `shares_key_with_held_out`.
    """
    hashed = make_hash(seed)
    counts["shares_key_with_held_out"] += 0
    for path in sifted.files:
        rows = [Row(sifted.pair, (a, b), (k, q), "train") for a, b, k, q in _read(path)]
        kept = [row for row in rows if forbidden.isdisjoint(row.marks())]
        counts["shares_key_with_held_out"] += len(rows) - len(kept)
        yield from sorted(kept, key=lambda row: order_of(row, hashed))
        path.unlink()
