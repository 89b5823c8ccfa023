"""Pruned models beside the full one: table, plot, and paired bootstrap; for recipes/pruning.

`python -m evaluation.pruning --text OUT/text --pair en-de --model full=CKPT --model use_4=CKPT
--output OUT` writes OUT/pruning.json, OUT/pruning.md and OUT/pruning.png. A model's name is
CRITERION_NUMBER or CRITERION_NUMBER_tuned. `--overrides CKPT` prints the Hydra settings that make a
checkpoint's shape.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.compare import compare_lines
from evaluation.systems import HypothesisStore, System, parse_system
from mtmoe.cli.main import Parser
from mtmoe.errors import ConfigError, run_command
from mtmoe.files import check_folder, open_atomic
from mtmoe.report.parallel_text import ParallelText, read_directions

SHAPE = ("num_experts", "experts_by_layer", "top_k", "choice_weight", "second_choice")
FULL = "full"
SAMPLES = 1000  # resampled test sets
ALL = "all"  # directions together


@dataclass(frozen=True)
class Result:
    """A model in one direction."""

    criterion: str
    is_tuned: bool
    share: float  # of the full model's experts that are kept
    direction: str  # or a pair (both its directions), or `all`
    chrf: float  # chrF++
    difference: float  # to the full model
    p_value: float  # paired bootstrap, Koehn 2004
    signature: str


def main() -> None:
    """Read the command line, translate, compare, write; the table goes to standard output."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("sacrebleu").setLevel(logging.WARNING)  # says what it does, 200 times
    args = parse_arguments()
    if args.overrides:
        sys.stdout.write(describe_shape(args.overrides) + "\n")
        return
    for option in ("text", "output", "model"):
        if not getattr(args, option):
            raise ConfigError(f"--{option} must be given, but is not. See --help.")
    check_folder("--output", args.output)
    systems = {system.name: system for system in (parse_system(m, args.beam) for m in args.model)}
    if FULL not in systems:
        raise ConfigError(f"--model must name {FULL}=CHECKPOINT, but does not. Add it.")
    texts = read_directions(args.text, "test", args.limit)
    results = compare_all(systems, texts, args.pair, Path(args.output))
    write(Path(args.output), results, args.pair)
    sys.stdout.write(to_markdown(results))


def parse_arguments() -> argparse.Namespace:
    """The options of the command."""
    parser = Parser("python -m evaluation.pruning", description=__doc__)
    parser.add_argument("--text", metavar="FOLDER", help="text/ of a prepared run")
    parser.add_argument("--pair", default="en-de", help="in which `language` models are tested")
    parser.add_argument("--limit", type=int, metavar="N", help="sentences of each pair")
    parser.add_argument("--beam", type=int, default=4)
    parser.add_argument("--model", action="append", metavar="NAME=CHECKPOINT")
    parser.add_argument("--output", metavar="FOLDER")
    parser.add_argument("--overrides", metavar="CHECKPOINT", help="print its shape for Hydra")
    return parser.parse_args()


def describe_shape(path: str) -> str:
    """Hydra overrides of the settings that pruning changes."""
    from mtmoe.checkpoint.fairseq_file import as_dict, load_checkpoint

    model = as_dict(load_checkpoint(path, is_mapped=True).state["cfg"]["model"])
    values = {key: str(model[key]).replace(",", "\\,") for key in SHAPE if model.get(key)}
    return " ".join(f"++model.{key}={value}" for key, value in values.items())


def share_of(system: System, full: System) -> float:
    """The share of the full model's experts that a model has."""
    from mtmoe.checkpoint.fairseq_file import load_checkpoint

    paths = [s.checkpoint for s in (system, full) if s.checkpoint]
    part, whole = (sum(load_checkpoint(p, True).config.num_experts_by_layer) for p in paths)
    return part / whole


def compare_all(
    systems: dict[str, System], texts: Sequence[ParallelText], pair: str, output: Path
) -> list[Result]:
    """A result for each model and direction, and for directions together.

    `language` models are tested in their pair only; all others in the pair, too.
    """
    store = HypothesisStore(output / "hypotheses")
    baseline = {text.direction: store.translate(systems[FULL], text) for text in texts}
    results = []
    for name, system in systems.items():
        criterion, is_tuned = name.split("_")[0], name.endswith("_tuned")
        share = share_of(system, systems[FULL])
        wanted = [t for t in texts if criterion != "language" or is_of(pair, t)]
        lines = {text.direction: store.translate(system, text) for text in wanted}
        for label, group in groups_of(wanted, pair).items():
            found = compare_group(group, baseline, lines)
            scores = (found[key] for key in ("hypotheses", "difference", "p_value", "signature"))
            results.append(Result(criterion, is_tuned, share, label, *scores))
    return results


def is_of(pair: str, text: ParallelText) -> bool:
    """Whether the text's direction is one of the pair's two."""
    return set(text.direction.split("-")) == set(pair.split("-"))


def groups_of(texts: Sequence[ParallelText], pair: str) -> dict[str, list[ParallelText]]:
    """The test sets by name: each direction, the pair's two together, and all together."""
    groups = {text.direction: [text] for text in texts}
    together = [text for text in texts if is_of(pair, text)]
    groups |= {f"{pair} both": together} if together else {}
    return groups | ({ALL: list(texts)} if len(together) < len(texts) else {})


def compare_group(
    texts: Sequence[ParallelText], baseline: dict[str, list[str]], lines: dict[str, list[str]]
) -> dict[str, Any]:
    """chrF++ of the texts as one, as `compare_lines` gives it."""
    full = [line for text in texts for line in baseline[text.direction]]
    other = [line for text in texts for line in lines[text.direction]]
    references = [line for text in texts for line in text.target]
    return compare_lines(full, other, references, "", SAMPLES)["chrf"]


def write(output: Path, results: Sequence[Result], pair: str) -> None:
    """pruning.json, pruning.md and pruning.png, each whole or not at all."""
    from evaluation.pruning_plot import draw_scores

    with open_atomic(output / "pruning.json") as file:
        file.write(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    with open_atomic(output / "pruning.md") as file:
        file.write(to_markdown(results))
    panels = {name: curves(results, name) for name in (ALL, f"{pair} both")}
    draw_scores({name: lines for name, lines in panels.items() if lines}, output / "pruning.png")


def curves(results: Sequence[Result], direction: str) -> dict[str, list[tuple[float, float]]]:
    """By model kind, (share kept, difference to the full model) in one column of the table."""
    found: dict[str, list[tuple[float, float]]] = {}
    for r in results:
        if r.criterion != FULL and r.direction == direction:
            name = f"{r.criterion}{', fine-tuned' if r.is_tuned else ''}"
            found.setdefault(name, []).append((r.share, r.difference))
    return {name: sorted(points) for name, points in found.items()}


def to_markdown(results: Sequence[Result]) -> str:
    """A row a model, a column a direction: chrF++, with * where it differs from the full one."""
    directions = list(dict.fromkeys(r.direction for r in results))
    rows: dict[tuple[str, str, float], dict[str, Result]] = {}
    for r in results:
        key = (r.criterion, "after" if r.is_tuned else "before", r.share)
        rows.setdefault(key, {})[r.direction] = r
    head = ["model", "fine-tuning", "experts kept", *directions]
    lines = [_line(head), _line([":---", ":---", *("---:" for _ in head[2:])])]
    for (criterion, tuned, share), found in rows.items():
        cells = [_cell(found.get(direction)) for direction in directions]
        when = "" if criterion == FULL and tuned == "before" else tuned
        lines.append(_line([criterion, when, f"{100 * share:.3g}%", *cells]))
    note = "chrF++; * differs from the full model with p < 0.05 (paired bootstrap)."
    signatures = sorted({r.signature for r in results})
    return "\n".join([note, "", *lines, "", *(f"`{s}`" for s in signatures)]) + "\n"


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    return f"{result.chrf:.1f}{'*' if result.p_value < 0.05 else ''}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(run_command(main))
