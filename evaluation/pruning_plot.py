"""The picture of recipes/pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtmoe.files import open_atomic


def draw_scores(curves: Mapping[str, Sequence[tuple[float, float]]], path: str | Path) -> None:
    """Write a PNG with one line a kind of model; fine-tuned ones are dashed.

    Args:
        curves: (share of experts kept, difference of chrF++ to the full model) by kind.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours: dict[str, str] = {}
    for name, points in curves.items():
        kind = name.split(",")[0]
        colour = colours.setdefault(kind, f"C{len(colours)}")
        style = "--" if name != kind else "-"
        xs, ys = zip(*points, strict=True)
        axes.plot([100 * x for x in xs], ys, style, color=colour, marker="o", label=name)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("experts kept, %")
    axes.set_ylabel("chrF++ minus that of the full model")
    axes.legend(fontsize=8)
    with open_atomic(path, "wb") as file:
        figure.savefig(file, format="png", dpi=130)
