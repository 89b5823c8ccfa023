"""Times of layouts beside those that they are compared with: Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from mtmoe.files import open_atomic


@dataclass(frozen=True)
class Result:
    """One row; the lists have an entry a round, in which all rows took their turn."""

    row: str
    reference: str  # the row that it is compared with
    seconds: list[float]  # of an update
    reference_seconds: list[float]
    communication: list[float]  # seconds of rank 0 in collectives
    losses: list[float]
    calls: dict[str, int] = field(default_factory=dict)  # of an update, by kind
    sent_bytes: dict[str, int] = field(default_factory=dict)  # by rank 0

    @property
    def ratio(self) -> float:
        """Median over the reference's median."""
        return median(self.seconds) / median(self.reference_seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between which half of the rounds' ratios lie."""
        pairs = zip(self.seconds, self.reference_seconds, strict=True)
        ratios = [own / other for own, other in pairs]
        if len(ratios) == 1:
            return ratios[0], ratios[0]
        low, _, high = quantiles(ratios, n=4, method="inclusive")
        return low, high

    @property
    def communication_share(self) -> float:
        """Median over the rounds, of the time of an update."""
        pairs = zip(self.communication, self.seconds, strict=True)
        return median(part / whole for part, whole in pairs)

    def as_dict(self) -> dict[str, object]:
        """An entry of the JSON file."""
        return {
            "row": self.row,
            "reference": self.reference,
            "seconds": median(self.seconds),
            "min": min(self.seconds),
            "max": max(self.seconds),
            "ratio": self.ratio,
            "ratio_quartiles": self.quartiles,
            "communication_share": self.communication_share,
            "last_loss": self.losses[-1],
            "calls": self.calls,
            "sent_bytes": self.sent_bytes,
        }


def make_results(
    references: Mapping[str, str],
    replies: Mapping[str, Sequence[dict[str, Any]]],
    counts: Mapping[str, dict[str, Any]],
) -> list[Result]:
    """The results of all rows that have replies, as has their reference.

    Args:
        references: of each row, in the order of the table.
        replies: the worker's, one a round.
        counts: what was sent, by row.
    """
    results = []
    for row, reference in references.items():
        if row in replies and reference in replies:
            own = replies[row]
            results.append(
                Result(
                    row,
                    reference,
                    [reply["seconds"] for reply in own],
                    [reply["seconds"] for reply in replies[reference]],
                    [reply["value"]["communication"] for reply in own],
                    [reply["value"]["loss"] for reply in own],
                    counts[row]["calls"],
                    counts[row]["bytes"],
                )
            )
    return results


def loss_difference(results: Sequence[Result]) -> float:
    """The largest difference of two rows' losses in the same round, relative to the loss."""
    rounds = zip(*(result.losses for result in results), strict=True)
    worst: float = max((max(losses) - min(losses)) / max(losses) for losses in rounds)
    return worst


def write_json(results: Sequence[Result], path: str | Path) -> None:
    """Write all results as a list, the whole file or nothing."""
    with open_atomic(path) as file:
        file.write(json.dumps([result.as_dict() for result in results], indent=1) + "\n")


def to_markdown(results: Sequence[Result]) -> str:
    """A table, a row a line."""
    head = ["row", "ms an update", "beside", "ratio (quartiles)", "in collectives", "sent, MB",
            "all-to-alls", "MB of them", "last loss"]  # fmt: skip
    lines = [head, ["---", "---:", "---", *["---:"] * 6], *map(_line, results)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _line(result: Result) -> list[str]:
    low, high = result.quartiles
    return [
        result.row,
        f"{1000 * median(result.seconds):.0f}",
        result.reference,
        f"{result.ratio:.2f} ({low:.2f}-{high:.2f})",
        f"{100 * result.communication_share:.0f} %",
        f"{sum(result.sent_bytes.values()) / 1e6:.1f}",
        str(result.calls.get("all_to_all", 0)),
        f"{result.sent_bytes.get('all_to_all', 0) / 1e6:.1f}",
        f"{result.losses[-1]:.4f}",
    ]
