"""What all benchmarks do with their timings: spread, tables, files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import quantiles
from typing import TypeVar

from mtmoe.files import open_atomic

Item = TypeVar("Item")


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The values between which half of `values` lie; a single one is both."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def unique(items: Iterable[Item]) -> list[Item]:
    """Each item once, in order."""
    return list(dict.fromkeys(items))


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_entries(entries: Sequence[dict[str, object]], path: str | Path) -> None:
    """Write a list of results as JSON, the whole file or nothing."""
    with open_atomic(path) as file:
        file.write(json.dumps(entries, indent=1) + "\n")
