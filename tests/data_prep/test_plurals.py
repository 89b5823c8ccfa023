from __future__ import annotations

import pytest

from data_prep.sources.plurals import plural_indices

RUSSIAN = (
    "nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : "
    "n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);"
)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("nplurals=2; plural=(n != 1);", (0, 1)),
        ("nplurals=1; plural=0;", (0, 0)),
        (RUSSIAN, (0, 2)),
        ("nplurals=3; plural=(n==1 ? 2 : n==0 ? 1 : 0);", (2, 0)),
    ],
)
def test_forms_of_one_and_of_most_numbers(header: str, expected: tuple[int, int]) -> None:
    assert plural_indices(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nplurals=INTEGER; plural=EXPRESSION;",
        "nplurals=2; plural=n.__class__",
        "nplurals=2; plural=n/0;",
        "nplurals=1; plural=(n != 1);",
        "nplurals=2; plural=((((n;",
    ],
)
def test_an_invalid_formula_gives_nothing(header: str) -> None:
    assert plural_indices(header) is None
