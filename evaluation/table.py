"""Scores of several systems by direction: JSON rows, averages, a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from evaluation.metrics import Score


@dataclass(frozen=True)
class Row:
    """The score of one system in one direction."""

    system: str
    direction: str
    num_sentences: int
    score: Score

    def as_dict(self) -> dict[str, object]:
        """An entry of scores.json."""
        return {
            "system": self.system,
            "direction": self.direction,
            "sentences": self.num_sentences,
            "bleu": self.score.bleu,
            "chrf": self.score.chrf,
            "signature": self.score.signature,
        }


def names_of(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """The systems and the directions, each once, in the order of their first rows."""
    return list(dict.fromkeys(r.system for r in rows)), list(
        dict.fromkeys(r.direction for r in rows)
    )


def average(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """The mean over directions of each system's scores, every direction counting the same.

    Returns:
        {system: {"bleu": ..., "chrf": ...}}
    """
    systems, _ = names_of(rows)
    return {
        name: {
            metric: round(fmean(getattr(r.score, metric) for r in rows if r.system == name), 2)
            for metric in ("bleu", "chrf")
        }
        for name in systems
    }


def to_markdown(rows: Sequence[Row]) -> str:
    """A row a direction, a column a system, averages last, signatures under the table."""
    systems, directions = names_of(rows)
    found = {(r.direction, r.system): r for r in rows}
    sizes = {r.direction: str(r.num_sentences) for r in rows}
    means = average(rows)
    lines = [
        "BLEU / chrF++ by direction; higher is better.",
        "",
        _line(["direction", "sentences", *systems]),
        _line([":---", "---:", *("---:" for _ in systems)]),
    ]
    for direction in directions:
        scores = (found[direction, system].score for system in systems)
        cells = (_cell(score.bleu, score.chrf) for score in scores)
        lines.append(_line([direction, sizes[direction], *cells]))
    lines.append(_line(["average", "", *(_cell(m["bleu"], m["chrf"]) for m in means.values())]))
    return "\n".join([*lines, "", *_signatures(rows)]) + "\n"


def _signatures(rows: Sequence[Row]) -> list[str]:
    """Each signature once, with its directions if there are several."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(row.score.signature, []).append(row.direction)
    if len(groups) == 1:
        return [f"`{signature}`" for signature in groups]
    return [f"- {', '.join(dict.fromkeys(of))}: `{text}`" for text, of in groups.items()]


def _cell(bleu: float, chrf: float) -> str:
    return f"{bleu:.1f} / {chrf:.1f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
