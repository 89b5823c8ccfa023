"""Pictures; the only place that imports matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtmoe.files import open_atomic

MAX_LABELLED_EXPERTS = 16  # more would not leave room for a number in each cell
NUM_COLUMNS = 2


def draw_expert_use(
    shares: Mapping[str, Mapping[str, Sequence[float]]], path: str | Path, title: str
) -> None:
    """Write a PNG with one heat map for each layer: languages down, experts across.

    Args:
        shares: {layer: {language: E shares that sum to 1}}, at least one layer.
    """
    num_rows = math.ceil(len(shares) / NUM_COLUMNS)
    languages = max(len(rows) for rows in shares.values())
    E = max(len(row) for rows in shares.values() for row in rows.values())
    size = (
        2.5 + NUM_COLUMNS * max(4.0, 0.5 * min(E, 24)),
        1.4 + num_rows * (1.1 + 0.36 * languages),
    )
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(num_rows, NUM_COLUMNS, squeeze=False).flatten()
    highest = max(max(row) for rows in shares.values() for row in rows.values())
    for axes, (layer, rows) in zip(grid, shares.items(), strict=False):
        image = _draw_layer(axes, layer, rows, highest)
    for axes in grid[len(shares) :]:
        axes.set_axis_off()
    _explain(figure, image, grid, E, title)
    with open_atomic(path, "wb") as file:
        figure.savefig(file, format="png", dpi=130)


def _draw_layer(axes: Any, layer: str, rows: Mapping[str, Sequence[float]], highest: float) -> Any:
    side, number = layer.split(".")
    language = "source" if side == "encoder" else "target"
    axes.set_title(f"{side} layer {int(number) + 1} ({layer}), by {language} language", fontsize=10)
    image = axes.imshow(list(rows.values()), cmap="viridis", vmin=0, vmax=highest, aspect="auto")
    E = len(next(iter(rows.values())))
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(0, E, math.ceil(E / MAX_LABELLED_EXPERTS)))
    axes.set_xlabel("expert", fontsize=9)
    if E <= MAX_LABELLED_EXPERTS:
        _write_numbers(axes, rows, highest)
    return image


def _write_numbers(axes: Any, rows: Mapping[str, Sequence[float]], highest: float) -> None:
    for y, row in enumerate(rows.values()):
        for x, share in enumerate(row):
            colour = "black" if share > 0.6 * highest else "white"
            text = f"{100 * share:.0f}"
            axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=8)


def _explain(figure: Any, image: Any, grid: Any, num_experts: int, title: str) -> None:
    """Title, colour bar with a mark at even use of the largest layer, and how to read it."""
    even = 1 / num_experts
    note = "Cell: % of the language's tokens whose first choice is the expert"
    even_use = f"even use of {num_experts} experts would be {even:.1%}."
    figure.suptitle(f"{title}\n{note}; {even_use}", fontsize=11)
    bar = figure.colorbar(image, ax=list(grid), format=lambda share, _: f"{share:.0%}")
    bar.set_label("share of tokens (line: even use)")
    bar.ax.axhline(even, color="red", linewidth=2)
