"""Timings of the MoE layer's rows as ratios to the dense row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.moe_cell import Cell
from benchmarks.timings import markdown_table, quartiles, unique

REFERENCE = "dense"


@dataclass(frozen=True)
class Result:
    """One row in one cell and pass."""

    row: str
    cell: Cell
    pass_name: str  # "fwd" or "fwdbwd"
    seconds: list[float]  # one a round
    reference: float  # median seconds of the dense row in the same rounds

    @property
    def ratio(self) -> float:
        """Median over the dense row's median."""
        return median(self.seconds) / self.reference

    @property
    def quartiles(self) -> tuple[float, float]:
        """The ratios between which half of the rounds lie."""
        low, high = quartiles(self.seconds)
        return low / self.reference, high / self.reference

    def as_dict(self) -> dict[str, object]:
        """An entry of the JSON file."""
        return {
            "row": self.row,
            "tokens": self.cell.tokens,
            "experts": self.cell.experts,
            "top_k": self.cell.top_k,
            "dtype": self.cell.dtype,
            "pass": self.pass_name,
            "ratio": self.ratio,
            "seconds": median(self.seconds),
            "min": min(self.seconds),
            "max": max(self.seconds),
        }


def compare(cell: Cell, pass_name: str, timings: Mapping[str, list[float]]) -> list[Result]:
    """The results of one cell and pass; none if the dense row has no time."""
    if REFERENCE not in timings:
        return []
    reference = median(timings[REFERENCE])
    return [Result(row, cell, pass_name, seconds, reference) for row, seconds in timings.items()]


def to_markdown(results: Sequence[Result]) -> str:
    """A table for each dtype and top-k: rows down, tokens and experts across.

    Cells are "fwd / fwdbwd" ratios, with quartiles in brackets; "-" where a row has none.
    """
    kinds = unique((r.cell.dtype, r.cell.top_k) for r in results)
    return "\n\n".join(
        f"### {dtype}, top-{top_k}\n\n"
        + _table([r for r in results if (r.cell.dtype, r.cell.top_k) == (dtype, top_k)])
        for dtype, top_k in kinds
    )


def _table(results: Sequence[Result]) -> str:
    rows, passes = unique(r.row for r in results), unique(r.pass_name for r in results)
    cells = unique(r.cell for r in results)
    found = {(r.row, r.cell, r.pass_name): r for r in results}
    head = [f"time / dense: {' / '.join(passes)} (quartiles)"]
    head += [f"{cell.tokens} tokens, E {cell.experts}" for cell in cells]
    lines = (
        [row, *(_entry([found.get((row, cell, p)) for p in passes]) for cell in cells)]
        for row in rows
    )
    return markdown_table(head, lines)


def _entry(results: Sequence[Result | None]) -> str:
    if not any(results):
        return "-"
    ratios = " / ".join("-" if r is None else f"{r.ratio:.2f}" for r in results)
    spreads = [None if r is None else r.quartiles for r in results]
    spread = " / ".join("-" if s is None else f"{s[0]:.2f}-{s[1]:.2f}" for s in spreads)
    return f"{ratios} ({spread})"
