from __future__ import annotations

import pytest

from data_prep.languages import ALIASES, SCRIPTS, canonical, iso_639_3, script_of


@pytest.mark.parametrize(
    ("code", "expected"),
    [("pt-BR", "pt_br"), ("fr_FR", "fr"), ("zh-Hans", "zh_hans"), ("zh_CN", "zh_hans")],
)
def test_canonical_spelling(code: str, expected: str) -> None:
    assert canonical(code) == expected


@pytest.mark.parametrize("code", ["de_AT", "es_MX", "fr_CA", "pt_PT", "sr@latin"])
def test_regional_variants_stay_apart(code: str) -> None:
    assert "_" in canonical(code)


def test_canonical_does_not_change_again() -> None:
    assert all(canonical(code) == code for code in ALIASES.values())


def test_scripts() -> None:
    assert script_of("de") == "Latin"
    assert script_of("zh_hant") == "Han"
    assert script_of("be_latn") == "Latin"
    assert script_of("sr") is None
    assert SCRIPTS["ru"] == "Cyrillic"


def test_three_letter_codes() -> None:
    assert [iso_639_3(code) for code in ("de", "pt_br", "sr", "kab")] == [
        "deu",
        "por",
        "hbs",
        "kab",
    ]
    assert iso_639_3("qx") is None
