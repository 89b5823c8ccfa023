from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.config import Limits
from data_prep.filters import Filter, find_refusals, make_filters
from data_prep.languages import script_of
from data_prep.normalise import strip_placeholders

GERMAN = "Diese Datei kann nicht gespeichert werden, weil der Platz fehlt."
ENGLISH = "This file cannot be saved, because there is no space left on it."


@pytest.fixture(scope="module")
def filters() -> list[Filter]:
    return make_filters(("en", "de"), Limits())


@pytest.mark.parametrize(
    ("english", "german", "reason"),
    [
        (ENGLISH, GERMAN, None),
        ("Save", "Speichern", None),
        ("OK", "In Ordnung", None),
        ("word " * 100, "Wort " * 100, "too_long"),
        ("a b " * 45, "a b " * 45, "too_many_words"),
        (ENGLISH * 2, "Datei", "length_ratio"),
        ("Open " + "x" * 50, "Öffne " + "x" * 50, "long_word"),
        ("%(a)s, %(b)s: 12", "%(b)s, %(a)s: 12", "few_letters"),
        ("Save the file", "Сохранить файл", "other_script"),
        ("Workflow: Start", "Workflow: start", "copy"),
        ("<b>Name</b>", "<b>Name</b>", "copy"),
        (ENGLISH, "Ce fichier ne peut pas être enregistré, car la place manque.", "other_language"),
        (ENGLISH, ENGLISH.replace("This", "That"), "other_language"),
        (GERMAN.replace("Diese", "Eine"), GERMAN, "other_language"),
    ],
)
def test_reasons(filters: list[Filter], english: str, german: str, reason: str | None) -> None:
    words = (strip_placeholders(english), strip_placeholders(german))
    assert find_refusals(filters, [(english, german)], [words])[0] == reason


def test_short_text_is_not_asked_for_its_language(filters: list[Filter]) -> None:
    pairs = [("Network", "Le réseau")]
    assert find_refusals(filters, pairs, pairs) == [None]


def test_a_language_without_spaces_has_no_long_words() -> None:
    pair = (
        "Delete all of the selected files of this folder at once?",
        "選択したファイルを削除" * 5,
    )
    assert find_refusals(make_filters(("en", "ja"), Limits()), [pair], [pair]) == [None]


def test_a_language_that_heliport_does_not_know_is_not_checked() -> None:
    pair = (ENGLISH, GERMAN)
    assert find_refusals(make_filters(("en", "tlh"), Limits()), [pair], [pair]) == [None]


def test_a_block_is_judged_as_its_pairs_are_one_by_one(filters: list[Filter]) -> None:
    pairs = [
        (ENGLISH, GERMAN),
        ("word " * 100, "Wort " * 100),
        ("Workflow", "workflow"),
        ("Open {name}", "Öffne {nom}"),
        (ENGLISH, ENGLISH),
        ("Save", "Speichern"),
    ]
    alone = [find_refusals(filters, [pair], [pair])[0] for pair in pairs]
    assert alone == [None, "too_long", "copy", "placeholders_differ", "copy", None]
    assert find_refusals(filters, pairs, pairs) == alone
    assert find_refusals(filters, [], []) == []


def test_placeholders_must_match_unless_that_is_switched_off() -> None:
    pairs = [("Open {name} now", "Öffne {nom} jetzt"), ("<b>Save</b> it", "<b>Sichere</b> es")]
    words = [("Open now", "Öffne jetzt"), ("Save it", "Sichere es")]
    strict, lenient = (
        make_filters(("en", "de"), Limits(match_placeholders=flag)) for flag in (True, False)
    )
    assert find_refusals(strict, pairs, words) == ["placeholders_differ", None]
    assert find_refusals(lenient, pairs, words) == [None, None]


def test_numbers_must_match_also_in_other_scripts() -> None:
    filters = make_filters(("en", "ar"), Limits(min_number_match=1.0))
    pairs = [
        ("Page 23 of the book", "صفحة ٢٣ من الكتاب"),
        ("Page 23 of the book", "صفحة 32 من الكتاب"),
        ("Page 7 of the book", "صفحة من الكتاب"),
        ("No number in here", "لا رقم هنا"),
    ]
    expected = [None, "numbers_differ", "numbers_differ", None]
    assert find_refusals(filters, pairs, pairs) == expected


texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=30)
mixed = texts | st.text("ab µéñЖя中\u0301 1-", max_size=12)


@settings(max_examples=500, deadline=None)
@given(mixed, mixed)
def test_shortcuts_answer_as_opusfilter_does(first: str, second: str) -> None:
    import opusfilter.filters as opus

    limits = Limits()
    for languages in (("en", "de"), ("en", "ru"), ("en", "ja")):
        scripts = [script_of(language) for language in languages]
        shown = [name or "Latin" for name in scripts]
        shares = [0 if name is None else limits.min_script_share for name in scripts]
        slow = {
            "few_letters": opus.AlphabetRatioFilter(limits.min_letter_share, True),
            "other_script": opus.CharacterScoreFilter(shown, shares),
            "copy": opus.SimilarityFilter(1.0, lowercase=True),
        }
        ours = {judge.name: judge for judge in make_filters(languages, limits)}
        for name, judge in slow.items():
            expected = judge.accept(next(iter(judge.score([(first, second)]))))
            assert list(ours[name].accept([(first, second)])) == [expected]
