from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtmoe.inference.segments import join_parts, split_pieces


def split(pieces: list[str], limit: int) -> list[list[str]]:
    return [[pieces[n] for n in part] for part in split_pieces(range(len(pieces)), pieces, limit)]


@given(
    st.lists(st.sampled_from(["▁a", "b", ".", "▁c.", "。", "?"]), max_size=60), st.integers(1, 20)
)
def test_parts_are_within_the_limit_and_together_the_whole(pieces: list[str], limit: int) -> None:
    parts = split(pieces, limit)
    assert [piece for part in parts for piece in part] == pieces
    assert all(1 <= len(part) <= limit for part in parts)


def test_what_fits_is_not_split() -> None:
    assert split(["▁a", ".", "▁b"], 3) == [["▁a", ".", "▁b"]]


def test_sentence_ends_come_before_the_middle() -> None:
    assert split(["▁a", ".", "▁b", "▁c", "▁d", "▁e"], 4) == [["▁a", "."], ["▁b", "▁c", "▁d", "▁e"]]


def test_each_sentence_is_a_part() -> None:
    pieces = ["▁A", "b", "c", ".", "▁D", "e", "f", "!", "▁", "G", "h", "i", "j"]
    assert split(pieces, 12) == [pieces[:4], pieces[4:8], pieces[8:]]
    assert split(pieces, 13) == [pieces]


def test_a_number_or_an_abbreviation_ends_no_sentence() -> None:
    pieces = ["▁1", ".", "▁A", "▁b", "▁e", ".", "g", ".", "▁c", "▁d", ".", "▁E", "▁f", "▁g", "."]
    assert split(pieces, 11) == [pieces[:11], pieces[11:]]


def test_a_full_stop_inside_a_word_ends_nothing() -> None:
    assert split(["▁a", ".", "b", "▁c"], 3) == [["▁a", ".", "b"], ["▁c"]]


def test_an_ideographic_full_stop_needs_no_space() -> None:
    assert split(["▁我", "。", "你", "好", "吗", "呢"], 4) == [
        ["▁我", "。"],
        ["你", "好", "吗", "呢"],
    ]


def test_without_words_the_middle_it_is() -> None:
    assert split(list("abcd"), 3) == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize(("language", "line"), [("de", "a b"), ("zh_hans", "ab"), ("ja", "ab")])
def test_parts_are_joined_as_the_language_writes(language: str, line: str) -> None:
    assert join_parts(["a", "", "b"], language) == line
