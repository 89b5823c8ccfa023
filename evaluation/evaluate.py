"""Translate a test set in every direction with several systems, score them side by side.

`python -m evaluation.evaluate --text OUT/text --system full=CKPT --system copy --output OUT` writes
OUT/hypotheses/, OUT/scores.json, OUT/averages.json and OUT/scores.md, and prints the table and
three example translations. Systems of an earlier call keep their columns while the text is the
same.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.examples import format_examples, pick_examples
from evaluation.metrics import score_lines
from evaluation.systems import COPY, HypothesisStore, System, parse_system
from evaluation.table import Row, average, names_of, to_markdown
from mtmoe.cli.main import Parser
from mtmoe.errors import ConfigError, run_command
from mtmoe.files import check_folder, open_atomic
from mtmoe.report.parallel_text import ParallelText, read_directions

NUM_EXAMPLES = 3
Hypotheses = dict[tuple[str, str], list[str]]  # by (system, direction)
log = logging.getLogger(__name__)


def main() -> None:
    """Read the command line, translate, score, write and print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    args = parse_arguments()
    check_folder("--output", args.output)
    systems = parse_systems(args.system, args.beam)
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit must be at least 1, but is {args.limit}. Give 1 or more.")
    texts = choose(read_directions(args.text, args.split, args.limit), args.directions)
    output = Path(args.output)
    hypotheses = collect_hypotheses(output, systems, texts)
    rows = score_all(hypotheses, texts)
    write_scores(output, rows)
    sys.stdout.write(f"{to_markdown(rows)}\n{show_examples(hypotheses, texts, rows)}\n")


def parse_arguments() -> argparse.Namespace:
    """The options of the command."""
    summary, details = (__doc__ or "").split("\n\n", 1)
    parser = Parser("python -m evaluation.evaluate", description=summary, epilog=details)
    parser.add_argument("--text", required=True, metavar="FOLDER", help="text/ of a prepared run")
    parser.add_argument("--split", default="test", help="which files of it: train, valid or test")
    parser.add_argument(
        "--system",
        action="append",
        required=True,
        metavar="NAME=CHECKPOINT",
        help="a system; `copy` repeats its source; may be given several times",
    )
    parser.add_argument("--output", required=True, metavar="FOLDER")
    parser.add_argument("--beam", type=int, default=4, help="hypotheses of the beam search")
    parser.add_argument("--directions", default="", help="only these, as en-de,de-en")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N sentences of each pair")
    return parser.parse_args()


def choose(texts: Sequence[ParallelText], directions: str) -> list[ParallelText]:
    """The texts of the named directions, in that order; all if none is named.

    Raises:
        ConfigError: there is no text of one.
    """
    by_name = {text.direction: text for text in texts}
    wanted = list(filter(None, (name.strip() for name in directions.split(",")))) or list(by_name)
    for name in wanted:
        if name not in by_name:
            raise ConfigError(
                f"--directions must be among {', '.join(by_name)}, but one is {name!r}."
            )
    return [by_name[name] for name in wanted]


def parse_systems(texts: Sequence[str], beam: int) -> list[System]:
    """The systems of the command line.

    Raises:
        ConfigError: the beam is too small, or a system is misspelt or named twice.
        CheckpointError: there is no such file.
    """
    if beam < 1:
        raise ConfigError(f"--beam must be at least 1, but is {beam}. Give 1 or more.")
    systems = [parse_system(text, beam) for text in texts]
    names = [system.name for system in systems]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(
            f"--system must name each system once, but repeats {', '.join(repeated)}. Rename one."
        )
    return systems


def collect_hypotheses(
    output: Path, systems: Sequence[System], texts: Sequence[ParallelText]
) -> Hypotheses:
    """Translations of the given systems, and of those that scores.json has besides.

    Columns keep the order of scores.json, new ones follow, copying is last.
    """
    store = HypothesisStore(output / "hypotheses")
    given = {system.name: system for system in systems}
    earlier = _earlier_systems(output / "scores.json")
    found: Hypotheses = {}
    for name in sorted(dict.fromkeys([*earlier, *given]), key=lambda name: name == COPY):
        if name in given:
            found |= {(name, text.direction): store.translate(given[name], text) for text in texts}
        else:
            found |= _read_kept(store, name, texts)
    return found


def _earlier_systems(path: Path) -> list[str]:
    try:
        return list(dict.fromkeys(row["system"] for row in json.loads(path.read_text("utf-8"))))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def _read_kept(store: HypothesisStore, name: str, texts: Sequence[ParallelText]) -> Hypotheses:
    """All translations of an earlier system, or none if the text has changed since."""
    kept: Hypotheses = {}
    for text in texts:
        lines = store.read(name, text)
        if lines is None:
            log.warning("%s is left out: its translations are not of this text", name)
            return {}
        kept[name, text.direction] = lines
    return kept


def score_all(hypotheses: Hypotheses, texts: Sequence[ParallelText]) -> list[Row]:
    """A row for each system and direction."""
    by_direction = {text.direction: text for text in texts}
    rows = []
    for (system, direction), lines in hypotheses.items():
        text = by_direction[direction]
        score = score_lines(lines, text.target, text.target_lang)
        rows.append(Row(system, direction, len(lines), score))
    return rows


def write_scores(output: Path, rows: Sequence[Row]) -> None:
    """scores.json, averages.json and scores.md, each whole or not at all."""
    contents = {
        "scores.json": json.dumps([row.as_dict() for row in rows], indent=1) + "\n",
        "averages.json": json.dumps(average(rows), indent=1) + "\n",
        "scores.md": to_markdown(rows),
    }
    for name, content in contents.items():
        with open_atomic(output / name) as file:
            file.write(content)


def show_examples(
    hypotheses: Hypotheses, texts: Sequence[ParallelText], rows: Sequence[Row]
) -> str:
    """Example translations of all systems but copying."""
    systems = [name for name in names_of(rows)[0] if name != COPY]
    return format_examples(pick_examples(texts, NUM_EXAMPLES), hypotheses, systems)


if __name__ == "__main__":
    sys.exit(run_command(main))
