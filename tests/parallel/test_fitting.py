"""The sizes that errors propose."""

from __future__ import annotations

from mtmoe.parallel.fitting import divisors, multiples_near


def test_divisors():
    assert divisors(12, 12) == "1, 2, 3, 4, 6 or 12"
    assert divisors(12, 5) == "1, 2, 3 or 4"
    assert divisors(7, 6) == "1"


def test_multiples_on_both_sides():
    assert multiples_near(6, 4) == "4 or 8"
    assert multiples_near(2, 4) == "4"
