"""The console script `mtmoe`: finds the command and hands over.

A command `some-name` is a module `mtmoe.cli.some_name` with `add_arguments(parser)` and
`run(args)`; it is imported only when it is called, and imports torch only in `run`.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from mtmoe import __version__
from mtmoe.cli.translation_ranks import is_first_rank
from mtmoe.errors import ConfigError, run_command

COMMANDS = {
    "translate": "translate text, line by line",
    "prune": "keep the experts that are used most",
    "usage": "measure and draw which languages use which experts",
    "expert-stats": "count what each expert does in each direction, for prune and for reading",
    "aggregate": "put the experts of several checkpoints side by side into one model",
    "upcycle": "make experts out of the feed-forward layers of a dense checkpoint",
    "convert": "take models over from Hugging Face and fairseq, and hand them on",
    "score": "say how likely given translations are",
    "languages": "list what a model translates",
    "doctor": "say whether a layout of ranks trains as one process does; under torchrun",
    "completion": "write what makes a shell complete commands and options",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise `message` as a ConfigError."""
        raise ConfigError(f"{message}. See `{self.prog} --help`.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mtmoe` with the arguments `argv` (default: the process's); returns the exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning is slow on cores in use
    logging.basicConfig(format="%(levelname)s: %(message)s")
    words = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _run(words), is_first_rank())


def _run(argv: list[str]) -> None:
    called = next((word for word in argv if not word.startswith("-")), None)
    parser = build_parser({called})
    args, others = parser.parse_known_args(argv)
    command = _import_command(args.command)
    if others and not getattr(command, "TAKES_OTHER_OPTIONS", False):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    args.others = others
    command.run(args)


def _import_command(name: str) -> Any:
    return importlib.import_module(f"mtmoe.cli.{name.replace('-', '_')}")


def build_parser(called: Collection[str | None]) -> Parser:
    """The parser of all commands, of which only those `called` have their arguments."""
    parser = Parser(prog="mtmoe", description=importlib.import_module("mtmoe").__doc__)
    parser.add_argument("--version", action="version", version=f"mtmoe {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_text in COMMANDS.items():
        command = commands.add_parser(name, help=help_text, description=f"{help_text}.")
        if name in called:
            _import_command(name).add_arguments(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
