"""Score what fairseq-generate wrote: `python -m evaluation.generated FILE...`.

For any task that has one right answer: title generation, denoising, translation. Reads the S-, T-
and D- lines, prints a table of BLEU and chrF++, of the model and of the source repeated.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import NamedTuple

from evaluation.metrics import score_lines
from mtmoe.cli.main import Parser
from mtmoe.data.vocabulary import CONTROL_SYMBOLS, TAG
from mtmoe.errors import DataError, run_command
from mtmoe.files import read_lines

ROW = re.compile(r"(?P<kind>[STD])-(?P<number>\d+)\t(?P<text>.*)", re.DOTALL)
WORD = re.compile(rf"(?:{TAG.pattern}|{'|'.join(map(re.escape, CONTROL_SYMBOLS))})\s?")


class Generated(NamedTuple):
    """Sources without tags, answers of the model, and right ones, line by line."""

    sources: list[str]
    hypotheses: list[str]
    references: list[str]


def main() -> None:
    """Print the table."""
    args = parse_arguments()
    sys.stdout.write(to_markdown({Path(name).name: read_generated(name) for name in args.files}))


def parse_arguments() -> argparse.Namespace:
    """The options of the command."""
    summary, details = (__doc__ or "").split("\n\n", 1)
    parser = Parser("python -m evaluation.generated", description=summary, epilog=details)
    parser.add_argument("files", nargs="+", metavar="FILE", help="output of fairseq-generate")
    return parser.parse_args()


def read_generated(path: str | Path) -> Generated:
    """The rows of a file, in the order of the text.

    Raises:
        DataError: there are none, or not three of each number.
    """
    found: dict[str, dict[int, str]] = {"S": {}, "T": {}, "D": {}}
    for line in read_lines(path):
        if match := ROW.fullmatch(line):
            text = match["text"]
            if match["kind"] == "D":
                text = text.partition("\t")[2]  # after the score
            found[match["kind"]][int(match["number"])] = text
    numbers = sorted(found["T"])
    if not numbers or any(sorted(rows) != numbers for rows in found.values()):
        raise DataError(
            f"{path} must hold S-, T- and D- lines of fairseq-generate, one of each number, but "
            "does not. Generate it again."
        )
    sources = [plain(found["S"][number]) for number in numbers]
    return Generated(sources, *([found[kind][n] for n in numbers] for kind in "DT"))


def plain(text: str) -> str:
    """A source without language tags, mask and task tokens."""
    return " ".join(WORD.sub(" ", text).split())


def to_markdown(generated: dict[str, Generated]) -> str:
    """A row for each file: sentences, BLEU and chrF++ of the model and of copying."""
    lines = ["| task | sentences | model | copy |", "| :--- | ---: | ---: | ---: |"]
    signature = ""
    for name, rows in generated.items():
        target = re.split("[-:]", name)[-1]
        cells = []
        for side in (rows.hypotheses, rows.sources):
            score = score_lines(side, rows.references, target)
            cells.append(f"{score.bleu:.1f} / {score.chrf:.1f}")
            signature = signature or score.signature
        lines.append(f"| {name} | {len(rows.references)} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"`{signature}`", ""])


if __name__ == "__main__":
    sys.exit(run_command(main))
