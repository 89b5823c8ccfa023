"""Which split a pair of strings belongs to.

Every string has a key (`copy_key`) that it shares with its near-copies. A keyed hash of the key of
a pair's first side decides whether it is held out for test, for valid, or belongs to train. So the
decision is equal in every language, and another language or more text does not move a string from
one split to another; it can only bring strings into use that were held out and unused. On top of
that, no pair of train or valid may share a key, on either side, with the pairs of test, and none of
train with valid.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from data_prep.config import SplitSettings
from data_prep.normalise import copy_key

Hash = Callable[[str], int]
HASH_RANGE = 1 << 64


class Row(NamedTuple):
    """A distinct pair of strings."""

    pair: str  # or the language of monolingual text, whose second string is empty
    texts: tuple[str, str]
    keys: tuple[str, str]
    region: str  # split that the hash of the first key gives

    def marks(self) -> list[tuple[str, str]]:
        """(language, key) of both sides, or of the one side of monolingual text."""
        return list(zip(self.pair.split("-"), self.keys, strict=False))


def make_hash(seed: int) -> Hash:
    """A hash of strings into [0, HASH_RANGE) that depends on nothing but the seed."""
    key = str(seed).encode()

    def value(text: str) -> int:
        digest = hashlib.blake2b(text.encode(), digest_size=8, key=key).digest()
        return int.from_bytes(digest, "big")

    return value


def make_row(pair: str, texts: tuple[str, str], settings: SplitSettings, hashed: Hash) -> Row:
    """The row of two strings."""
    keys = (copy_key(texts[0]), copy_key(texts[1]))
    return Row(pair, texts, keys, region(hashed(keys[0]), settings))


def order_of(row: Row, hashed: Hash) -> tuple[int, Row]:
    """By what train is shuffled."""
    return hashed("\t".join((row.pair, *row.texts))), row


def deduplicate(
    texts: Iterable[tuple[str, str]], max_translations: int, hashed: Hash
) -> list[tuple[str, str]]:
    """Distinct rows, the most frequent `max_translations` of each first string, in sorted order."""
    by_first: dict[str, list[tuple[str, str]]] = defaultdict(list)
    frequency = Counter(texts)
    for row in sorted(frequency, key=lambda row: (-frequency[row], hashed("\t".join(row)), row)):
        by_first[row[0]].append(row)
    return [row for first in sorted(by_first) for row in by_first[first][:max_translations]]


def region(value: int, settings: SplitSettings) -> str:
    """The split of a hash value: `held_out_share` of all for test and valid, by their sizes."""
    share = value / HASH_RANGE / settings.held_out_share
    if share >= 1:
        return "train"
    return "test" if share < settings.test / (settings.test + settings.valid) else "valid"


def choose(
    rows: list[Row], name: str, size: int, forbidden: set[tuple[str, str]], hashed: Hash
) -> list[Row]:
    """The rows of test or valid: per first language, `size` strings in as many pairs as possible.

    Among strings that equally many pairs translate, the hash chooses. One string stands for all
    that have its key, and its first row (the most frequent translation) for all its translations.
    """
    groups: dict[tuple[str, str], dict[str, dict[str, Row]]] = defaultdict(dict)
    for row in rows:
        if row.region == name and forbidden.isdisjoint(row.marks()):
            spellings = groups[row.pair.split("-")[0], row.keys[0]]
            spellings.setdefault(row.texts[0], {}).setdefault(row.pair, row)
    by_language: dict[str, list[dict[str, Row]]] = defaultdict(list)
    for (language, _), spellings in groups.items():
        best = min(spellings, key=lambda text: (-len(spellings[text]), hashed(text), text))
        by_language[language].append(spellings[best])
    chosen: list[Row] = []
    for candidates in by_language.values():
        candidates.sort(key=lambda by_pair: (-len(by_pair), *_order(by_pair, hashed)))
        best_ones = sorted(candidates[:size], key=lambda by_pair: _order(by_pair, hashed))
        chosen += [row for by_pair in best_ones for row in by_pair.values()]
    return chosen


def _order(by_pair: dict[str, Row], hashed: Hash) -> tuple[int, str]:
    key = next(iter(by_pair.values())).keys[0]
    return hashed(f"order\t{key}"), key
