"""The ratio to the dense row over the number of experts, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from benchmarks.moe_results import Result
from benchmarks.timings import unique
from mtmoe.files import open_atomic


def draw_ratios(results: Sequence[Result], path: str | Path, title: str) -> None:
    """Write a PNG: a line of panels for each dtype and top-k, a panel for each tokens and pass."""
    kinds = unique((r.cell.dtype, r.cell.top_k) for r in results)
    columns = unique((r.cell.tokens, r.pass_name) for r in results)
    size = (3.4 * len(columns) + 1.6, 2.9 * len(kinds) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(kinds), len(columns), squeeze=False)
    colours = {row: f"C{number}" for number, row in enumerate(unique(r.row for r in results))}
    for line, (dtype, top_k) in zip(grid, kinds, strict=True):
        for axes, (tokens, pass_name) in zip(line, columns, strict=True):
            chosen = [
                r
                for r in results
                if (r.cell.dtype, r.cell.top_k, r.cell.tokens, r.pass_name)
                == (dtype, top_k, tokens, pass_name)
            ]
            _draw_panel(axes, chosen, colours)
            axes.set_title(f"{pass_name}, {tokens} tokens, top-{top_k}, {dtype}", fontsize=8)
    _add_legend(figure, colours)
    figure.suptitle(title, fontsize=10)
    with open_atomic(path, "wb") as file:
        figure.savefig(file, format="png", dpi=130)


def _draw_panel(axes: Any, results: Sequence[Result], colours: dict[str, str]) -> None:
    for row, colour in colours.items():
        points = sorted((r.cell.experts, r.ratio, *r.quartiles) for r in results if r.row == row)
        if points:
            experts, ratio, low, high = zip(*points, strict=True)
            axes.plot(experts, ratio, marker="o", markersize=3, color=colour)
            axes.fill_between(experts, low, high, color=colour, alpha=0.2)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_locator(NullLocator())
    axes.set_xticks(unique(r.cell.experts for r in results))
    axes.set_xlabel("experts", fontsize=8)
    axes.set_ylabel("time / dense", fontsize=8)
    axes.grid(alpha=0.3)


def _add_legend(figure: Any, colours: dict[str, str]) -> None:
    lines = [
        figure.axes[0].plot([], [], marker="o", color=colour, label=row)[0]
        for row, colour in colours.items()
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=8)
