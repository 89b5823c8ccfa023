"""The picture of recipes/pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtmoe.files import open_atomic

Curves = Mapping[str, Sequence[tuple[float, float]]]


def draw_scores(panels: Mapping[str, Curves], path: str | Path) -> None:
    """Write a PNG: a panel a test set, one line a kind of model; fine-tuned ones are dashed.

    Args:
        panels: by test set and kind, (share of experts kept, difference of chrF++ to the full
            model).
    """
    figure = Figure(figsize=(5.5 * len(panels), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    colours: dict[str, str] = {}
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, curves) in zip(row, panels.items(), strict=True):
        _draw_panel(axes, curves, colours)
        axes.set_title(title)
    row[0].set_ylabel("chrF++ minus that of the full model")
    with open_atomic(path, "wb") as file:
        figure.savefig(file, format="png", dpi=130)


def _draw_panel(axes: Axes, curves: Curves, colours: dict[str, str]) -> None:
    for name, points in curves.items():
        kind = name.split(",")[0]
        colour = colours.setdefault(kind, f"C{len(colours)}")
        style = "--" if name != kind else "-"
        xs, ys = zip(*points, strict=True)
        axes.plot([100 * x for x in xs], ys, style, color=colour, marker="o", label=name)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("experts kept, %")
    axes.legend(fontsize=8)
