"""`mtmoe score`: how likely a model finds given translations."""

from __future__ import annotations

import argparse
import sys

from mtmoe.cli.translate import add_model_arguments, load, write_output
from mtmoe.errors import DataError
from mtmoe.files import check_output, read_lines
from mtmoe.inference.search_config import SearchConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_model_arguments(parser)
    parser.add_argument("--source", required=True, metavar="FILE", help="sentences, one a line")
    parser.add_argument("--target", required=True, metavar="FILE", help="their translations")
    parser.add_argument("--length-penalty", type=float, default=1.0, metavar="N")
    parser.add_argument("--output", metavar="FILE", help="scores; default: standard output")


def run(args: argparse.Namespace) -> None:
    """Write a score a line: the mean log probability of a piece if the penalty is 1.

    Raises:
        ConfigError, DataError, CheckpointError: a user's mistake.
    """
    config = SearchConfig(length_penalty=args.length_penalty)
    check_output("--output", args.output)
    source, target = read_lines(args.source), read_lines(args.target)
    if len(source) != len(target):
        raise DataError(
            f"--target must have as many lines as --source ({len(source)}), but has {len(target)}. "
            "Give two files that go together."
        )
    translator, source_lang = load(args)
    from mtmoe.inference.requests import Request

    names = (f"{args.source} line {number}" for number in range(1, len(source) + 1))
    requests = [
        Request(line, source_lang, args.target_lang, name=name)
        for line, name in zip(source, names, strict=True)
    ]
    found = translator.score(requests, target, config)
    with write_output(args.output) as file:
        file.write("".join(f"{translation.score:.6f}\n" for translation in found).encode())
    sys.stdout.flush()
