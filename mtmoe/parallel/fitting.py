"""Sizes that would fit, for the errors of those that do not."""

from __future__ import annotations

from collections.abc import Sequence


def divisors(number: int, at_most: int) -> str:
    """The numbers up to `at_most` that divide `number`, in words: "1, 2 or 4"."""
    return in_words([n for n in range(1, at_most + 1) if number % n == 0])


def multiples_near(number: int, of: int) -> str:
    """The multiples of `of` on both sides of `number`, in words: "4 or 8"."""
    below = number // of * of
    return in_words([n for n in (below, below + of) if n > 0])


def in_words(numbers: Sequence[int]) -> str:
    """1, 2 and 4 as "1, 2 or 4"."""
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}" if others else last
