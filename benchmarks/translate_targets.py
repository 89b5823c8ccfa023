"""How much faster mtmoe wants to be than what, and how much faster it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.timings import markdown_table, unique
from benchmarks.translate_results import Result


@dataclass(frozen=True)
class Target:
    """A speed over another one; of each, the fastest row whose name begins so."""

    row: str
    other: str
    at_least: float

    def ratio(self, results: Sequence[Result], beam: int) -> float | None:
        """What was measured; None if one of them was not."""
        ours, theirs = (_fastest(results, name, beam) for name in (self.row, self.other))
        return None if ours is None or theirs is None else ours / theirs


TARGETS = (
    Target("mtmoe dense float32", "ctranslate2 dense float32", 1.0),
    Target("mtmoe dense int8", "ctranslate2 dense int8", 1.0),
    Target("mtmoe dense float32", "fairseq dense float32", 2.5),
    Target("mtmoe moe16 float32", "mtmoe dense_wide float32", 0.8),
    Target("mtmoe moe16 float32", "huggingface moe16 float32", 4.0),
    Target("mtmoe pruned4 float32", "mtmoe dense_wide float32", 1.0),
)


def _fastest(results: Sequence[Result], name: str, beam: int) -> float | None:
    found = (r for r in results if r.beam == beam and str(r.row).startswith(f"{name} "))
    return max((r.tokens_per_second for r in found), default=None)


def to_markdown(results: Sequence[Result]) -> str:
    """A line for each target that was measured, with the ratio at each beam; "" without any."""
    beams, lines = unique(r.beam for r in results), []
    for target in TARGETS:
        ratios = [target.ratio(results, beam) for beam in beams]
        if any(ratios):
            shown = ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
            lines.append([target.row, target.other, f"{target.at_least}", *shown])
    head = ["speed of", "over that of (fastest)", "at least", *(f"beam {b}" for b in beams)]
    return markdown_table(head, lines) if lines else ""
