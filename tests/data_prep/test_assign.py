from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import divide as divide_module
from data_prep.assign import deduplicate, make_hash, region
from data_prep.config import SplitSettings
from data_prep.divide import Rules, sift, train_rows
from data_prep.normalise import copy_key
from data_prep.records import Record, write_records
from data_prep.split import hold_out
from data_prep.text_files import Marks

SIZES = SplitSettings(test=20, valid=10, held_out_share=0.2)
NAMES = ("train", "valid", "test")


@dataclass(frozen=True)
class Splits:
    """Rows by pair, in their final order."""

    train: dict[str, list[tuple[str, str]]]
    valid: dict[str, list[tuple[str, str]]]
    test: dict[str, list[tuple[str, str]]]
    counts: dict[str, dict[str, int]]


def corpus(num: int, *languages: str) -> dict[str, list[tuple[str, str]]]:
    return {
        f"en-{code}": [(f"String {i}", f"{code} Zeile {i}") for i in range(num)]
        for code in languages
    }


def divide(
    texts: dict[str, list[tuple[str, str]]],
    seed: int = 1,
    excluded: Marks | None = None,
    near: bool = False,
    **changes: Any,
) -> Splits:
    """Divide as the split step does, in files of a temporary folder."""
    rules = Rules(SplitSettings(**{**vars(SIZES), **changes}), 3, seed, near)
    with TemporaryDirectory() as folder:
        sifted = []
        for pair, rows in texts.items():
            source = Path(folder) / f"{pair}.jsonl"
            write_records(source, [Record(*row, "made up") for row in rows])
            sifted.append(sift(pair, source, Path(folder), rules, excluded or set()))
        held_out = hold_out(sifted, rules)
        forbidden = {mark for rows in held_out.values() for row in rows for mark in row.marks()}
        splits = Splits({}, {}, {}, {})
        for part in sifted:
            counts = Counter(part.counts)
            found = {"train": list(train_rows(part, forbidden, seed, counts)), **held_out}
            for name in NAMES:
                texts_of = [row.texts for row in found[name] if row.pair == part.pair]
                getattr(splits, name)[part.pair] = texts_of
                counts[name] = len(texts_of)
            counts["held_out_unused"] = len(part.held_out) - counts["valid"] - counts["test"]
            splits.counts[part.pair] = dict(counts)
    return splits


def english_keys(splits: Splits, name: str) -> set[str]:
    return {copy_key(row[0]) for rows in getattr(splits, name).values() for row in rows}


words = st.sampled_from(
    ["Save", "save!", "Save %s", "Open", "OPEN", "Close", "close…", "Exit", "?"]
)
rows = st.lists(st.tuples(words, words), max_size=60)


@settings(max_examples=60, deadline=None)
@given(rows, rows, rows, st.integers(0, 9))
def test_no_key_stands_in_two_splits(
    german: list[tuple[str, str]],
    french: list[tuple[str, str]],
    third: list[tuple[str, str]],
    seed: int,
) -> None:
    texts = {"en-de": german, "en-fr": french, "de-fr": third}
    splits = divide(texts, seed, held_out_share=0.5)
    keys: dict[tuple[str, str], set[str]] = {}
    for name in NAMES:
        for pair, part in getattr(splits, name).items():
            for side, language in enumerate(pair.split("-")):
                keys.setdefault((name, language), set()).update(copy_key(row[side]) for row in part)
    for language in ("en", "de", "fr"):
        train, valid, test = (keys.get((name, language), set()) for name in NAMES)
        assert not test & train
        assert not valid & train
        assert not test & valid


def test_every_row_is_accounted_for() -> None:
    texts = corpus(300, "de", "fr")
    texts["en-de"] += texts["en-de"][:7]
    for pair, counts in divide(texts).counts.items():
        assert counts["in"] == len(texts[pair])
        assert counts["in"] == sum(counts.values()) - counts["in"]


def test_test_and_valid_hold_the_same_english_in_every_language() -> None:
    texts = corpus(500, "de", "es", "fr")
    del texts["en-fr"][::7]
    splits = divide(texts)
    for part, size in ((splits.test, 20), (splits.valid, 10)):
        english = [[row[0] for row in rows] for rows in part.values()]
        assert english[0] == english[1] == english[2]
        assert len(english[0]) == size


def shouted(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(f"{first.upper()}!", second) for first, second in rows]


@pytest.mark.parametrize("languages", [("de", "fr", "it"), ("fr",)])
def test_other_languages_and_spellings_move_no_string(languages: tuple[str, ...]) -> None:
    others = corpus(500, *languages)
    others["en-fr"] = shouted(others["en-fr"])
    few, many = divide(corpus(500, "de")), divide(others)
    for one, other in (("train", "test"), ("train", "valid"), ("test", "valid")):
        assert not english_keys(few, one) & english_keys(many, other)
        assert not english_keys(many, one) & english_keys(few, other)


def test_a_train_pair_whose_target_stands_in_test_is_dropped() -> None:
    texts = corpus(300, "de")
    held = divide(texts).test["en-de"][0]
    trained = divide(texts).train["en-de"][0]
    leaking = (trained[0], held[1].upper())
    splits = divide({"en-de": [*texts["en-de"], leaking]})
    assert leaking not in splits.train["en-de"]
    assert splits.counts["en-de"]["shares_key_with_held_out"] == 1


def test_one_row_stands_for_its_near_copies_in_test() -> None:
    texts = corpus(300, "de")
    held, german = divide(texts).test["en-de"][0]
    texts["en-de"] += [(f"{held}!", german), (held, "anders"), (held, german)]
    found = [row for row in divide(texts).test["en-de"] if copy_key(row[0]) == copy_key(held)]
    assert found in ([(held, german)], [(f"{held}!", german)])


def test_the_order_of_the_input_does_not_matter() -> None:
    texts = corpus(300, "de")
    turned = {pair: rows[::-1] for pair, rows in texts.items()}
    assert divide(texts) == divide(turned)
    assert divide(texts) != divide(texts, seed=2)


def test_deduplicate_keeps_the_most_frequent_translations() -> None:
    texts = [("a", "1"), ("a", "2"), ("a", "2"), ("a", "3"), ("a", "3"), ("b", "1")]
    assert set(deduplicate(texts, 2, make_hash(1))) == {("a", "2"), ("a", "3"), ("b", "1")}


@pytest.mark.parametrize("seed", [1, 2])
def test_regions_have_their_shares(seed: int) -> None:
    hashed = make_hash(seed)
    found = Counter(region(hashed(str(i)), SIZES) for i in range(20_000))
    assert found["test"] == pytest.approx(20_000 * 0.2 * 2 / 3, rel=0.1)
    assert found["valid"] == pytest.approx(20_000 * 0.2 / 3, rel=0.1)


def test_many_small_files_give_the_same_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = corpus(300, "de", "fr")
    whole = divide(texts)
    monkeypatch.setattr(divide_module, "FILE_BYTES", 1000)
    assert divide(texts) == whole


def test_strings_of_a_given_test_set_stand_in_no_split() -> None:
    texts = corpus(300, "de", "fr")
    excluded = {("de", copy_key("DE Zeile 7")), ("en", copy_key("string 8!")), ("fr", "x")}
    splits = divide(texts, excluded=excluded)
    for name in NAMES:
        for pair, rows_of in getattr(splits, name).items():
            found = {row[0] for row in rows_of}
            assert "String 8" not in found
            assert ("String 7" in found) <= (pair == "en-fr")
    assert [splits.counts[pair]["excluded"] for pair in texts] == [2, 1]
    for pair, counts in splits.counts.items():
        assert counts["in"] == len(texts[pair]) == sum(counts.values()) - counts["in"]


def test_near_duplicates_are_dropped_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = corpus(300, "de")
    copies = [(f"{a.upper()}!", f"{b}.") for a, b in texts["en-de"][:50]]
    other = [(a.upper(), f"{b} anders") for a, b in texts["en-de"][:20]]
    texts["en-de"] += [*copies, *other]
    monkeypatch.setattr(divide_module, "FILE_BYTES", 1000)
    counts = divide(texts, near=True).counts["en-de"]
    assert counts["near_duplicates"] == 50
    assert counts["in"] == sum(counts.values()) - counts["in"]
    assert "near_duplicates" not in divide(texts).counts["en-de"]
