from __future__ import annotations

import pytest

from data_prep.config import Limits
from data_prep.filters import Filter, first_refusal, make_filters
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
    assert first_refusal(filters, (english, german), words) == reason


def test_short_text_is_not_asked_for_its_language(filters: list[Filter]) -> None:
    assert first_refusal(filters, ("Network", "Le réseau"), ("Network", "Le réseau")) is None


def test_a_language_without_spaces_has_no_long_words() -> None:
    pair = (
        "Delete all of the selected files of this folder at once?",
        "選択したファイルを削除" * 5,
    )
    assert first_refusal(make_filters(("en", "ja"), Limits()), pair, pair) is None


def test_a_language_that_heliport_does_not_know_is_not_checked() -> None:
    pair = (ENGLISH, GERMAN)
    assert first_refusal(make_filters(("en", "tlh"), Limits()), pair, pair) is None
