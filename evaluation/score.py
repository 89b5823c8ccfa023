"""Score translations: `python -m evaluation.score --hypotheses FILE --references FILE`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from evaluation.metrics import Score, check_language, score_lines
from mtmoe.cli.main import Parser
from mtmoe.errors import run_command
from mtmoe.files import read_lines


def main() -> None:
    """Read the command line and both files, print the scores."""
    args = parse_arguments()
    check_language("--target-lang", args.target_lang)
    score = score_lines(read_lines(args.hypotheses), read_lines(args.references), args.target_lang)
    text = to_markdown(score) if args.format == "markdown" else to_json(score)
    sys.stdout.write(f"{text}\n")


def parse_arguments() -> argparse.Namespace:
    """The options of the command."""
    parser = Parser("python -m evaluation.score", description=__doc__)
    parser.add_argument("--hypotheses", required=True, metavar="FILE", help="a translation a line")
    parser.add_argument("--references", required=True, metavar="FILE", help="as many, by people")
    parser.add_argument("--target-lang", default="", metavar="xx", help="chooses BLEU's tokenizer")
    parser.add_argument("--format", choices=("json", "markdown"), default="json")
    return parser.parse_args()


def to_json(score: Score) -> str:
    """One object with the numbers and the signature."""
    return json.dumps(dataclasses.asdict(score), indent=2)


def to_markdown(score: Score) -> str:
    """A table of one row, and the signature under it."""
    return (
        "| BLEU | chrF++ |\n| ---: | ---: |\n"
        f"| {score.bleu:.1f} | {score.chrf:.1f} |\n\n`{score.signature}`"
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
