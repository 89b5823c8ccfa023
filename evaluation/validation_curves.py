"""Validation loss over updates of several trainings, out of fairseq's logs: table and plot.

`python -m evaluation.validation_curves --run scratch=a.log --run joint=b.log --output OUT`
writes OUT/curves.json, OUT/curves.md and OUT/curves.png. Logs of one name are joined by `+`:
`--run joint=start.log+b.log`; `fairseq-validate` gives the loss before the first update.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtmoe.cli.main import Parser
from mtmoe.errors import ConfigError, DataError, run_command
from mtmoe.files import check_folder, open_atomic, read_lines

LOSS = re.compile(r"valid on '\w+' subset \|.*? nll_loss ([\d.]+) ")
UPDATES = re.compile(r"num_updates (\d+)")
Curve = dict[int, float]  # bits a token by update


def main() -> None:
    """Read the logs, write the files; the table goes to standard output.

    Raises:
        ConfigError, DataError: a user's mistake.
    """
    args = _parser().parse_args()
    check_folder("--output", args.output)
    curves = dict(read_run(word) for word in args.run)
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    with open_atomic(output / "curves.json") as file:
        file.write(json.dumps(curves, indent=1) + "\n")
    table = to_markdown(curves)
    with open_atomic(output / "curves.md") as file:
        file.write(table)
    draw(curves, output / "curves.png")
    sys.stdout.write(table)


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m evaluation.validation_curves", description=__doc__)
    parser.add_argument("--run", action="append", required=True, metavar="NAME=LOG[+LOG]")
    parser.add_argument("--output", required=True, metavar="FOLDER")
    return parser


def read_run(word: str) -> tuple[str, Curve]:
    """The name and the losses that `NAME=LOG+LOG` stands for.

    Raises:
        ConfigError: it is of another form.
        DataError: a log is not there, or none has a validation loss.
    """
    name, _, paths = word.partition("=")
    if not name or not paths:
        raise ConfigError(f"--run must be NAME=LOG, but is {word!r}. Write --run joint=joint.log.")
    curve: Curve = {}
    for path in paths.split("+"):
        for line in read_lines(path):
            loss, updates = LOSS.search(line), UPDATES.search(line)
            if loss:
                curve[int(updates[1]) if updates else 0] = float(loss[1])
    if not curve:
        raise DataError(f"log must hold validation losses, but {paths} has none. Train on.")
    return name, dict(sorted(curve.items()))


def to_markdown(curves: Mapping[str, Curve]) -> str:
    """A row a run, a column an update."""
    updates = sorted({update for curve in curves.values() for update in curve})
    rows = [["bits a token after updates", *map(str, updates)], [":---", *["---:"] * len(updates)]]
    for name, curve in curves.items():
        cells = [f"{curve[update]:.3f}" if update in curve else "" for update in updates]
        rows.append([name, *cells])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def draw(curves: Mapping[str, Curve], path: Path) -> None:
    """Write the picture."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(list(curve), list(curve.values()), marker="o", label=name)
    axes.set_xlabel("updates")
    axes.set_ylabel("validation loss, bits a token")
    axes.legend(fontsize=8)
    with open_atomic(path, "wb") as file:
        figure.savefig(file, format="png", dpi=130)


if __name__ == "__main__":
    sys.exit(run_command(main))
