"""Numbers that change over updates, and tables of them, as settings write them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtmoe.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """A number by update: linear between points, constant before the first and after the last."""

    points: tuple[tuple[int, float], ...]

    def at(self, update: int) -> float:
        """The number at `update`."""
        updates, values = zip(*self.points, strict=True)
        return float(np.interp(update, updates, values))


def parse_schedule(name: str, text: str) -> Schedule:
    """`0.3`, or points `0:0.1/9000:0.3`.

    Args:
        name: the setting, for the error.

    Raises:
        ConfigError: it is neither, a number is negative, or updates do not increase.
    """
    try:
        points = [_point(part) for part in text.split("/")]
    except ValueError:
        points = []
    updates = [update for update, _ in points]
    is_ordered = updates == sorted(set(updates)) and updates != []
    if not is_ordered or not all(update >= 0 and 0 <= value < np.inf for update, value in points):
        raise ConfigError(
            f"{name} must be a number (0.3) or UPDATE:NUMBER points (0:0.1/9000:0.3), "
            f"0 or above and with increasing updates, but has {text!r}."
        )
    return Schedule(tuple(points))


def _point(text: str) -> tuple[int, float]:
    update, separator, value = text.rpartition(":")
    return (int(update) if separator else 0), float(value)


def parse_table(name: str, text: str, default: str | None = None) -> dict[str, Schedule]:
    """`a=1,b=0:1/50:2` to schedules by key.

    Args:
        default: what a key without `=` gets; None: it is refused.

    Raises:
        ConfigError: an entry has no value, or a key stands twice.
    """
    table: dict[str, Schedule] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        key, separator, value = entry.partition("=")
        if not separator and default is not None:
            value = default
        elif not separator:
            raise ConfigError(f"{name} must be NAME=NUMBER,..., but has {entry!r}.")
        if key in table:
            raise ConfigError(f"{name} must name each key once, but has {key!r} twice.")
        table[key] = parse_schedule(name, value)
    return table
