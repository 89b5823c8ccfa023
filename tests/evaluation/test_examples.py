"""Which example translations are shown."""

from __future__ import annotations

from evaluation.examples import format_examples, pick_examples, spread
from mtmoe.report.parallel_text import ParallelText


def make_texts(*pairs: tuple[str, str]) -> list[ParallelText]:
    english = [
        "one",
        "one two three four five",
        "a b c d e f g",
        "all the same words here",
        "x " * 13,
    ]
    english = [*english, "now there are six words here", "Delete the selected files now please"]
    forward = []
    for first, second in pairs:
        other = [f"{second} {line}" for line in english]
        other[3] = english[3].upper()
        forward.append(ParallelText(first, second, tuple(english), tuple(other)))
    return forward + [text.reverse() for text in forward]


def test_examples_are_of_different_pairs_and_of_both_directions() -> None:
    texts = make_texts(("en", "de"), ("en", "es"), ("en", "fr"))
    picked = pick_examples(texts, 3)
    assert [text.direction for text, _ in picked] == ["en-de", "es-en", "en-fr"]
    assert picked == pick_examples(texts, 3)


def test_examples_have_middle_length_and_are_no_copies_and_are_shown_once() -> None:
    texts = make_texts(("en", "de"), ("en", "es"), ("en", "fr"))
    lines = [line for _, line in pick_examples(texts, 3)]
    assert len(set(lines)) == 3
    assert 3 not in lines
    assert 0 not in lines
    assert 4 not in lines


def test_one_pair_gives_two_examples() -> None:
    texts = make_texts(("en", "de"))
    assert [text.direction for text in spread(texts)] == ["en-de", "de-en"]
    assert len(pick_examples(texts, 3)) == 2


def test_example_shows_source_reference_and_each_system() -> None:
    text = ParallelText("en", "de", ("Save",), ("Sichern",))
    said = {("full", "en-de"): ["Speichern"], ("pruned", "en-de"): ["Sparen"]}
    lines = format_examples([(text, 0)], said, ["full", "pruned"]).split("\n")
    assert lines[0] == "en-de"
    assert [line.split() for line in lines[1:]] == [
        ["source", "Save"],
        ["reference", "Sichern"],
        ["full", "Speichern"],
        ["pruned", "Sparen"],
    ]


def test_directions_may_be_any() -> None:
    texts = make_texts(("en", "de"), ("en", "es"))[:3]
    assert sorted(text.direction for text in spread(texts)) == sorted(t.direction for t in texts)
    assert [text.direction for text in spread(texts[:1])] == [texts[0].direction]
