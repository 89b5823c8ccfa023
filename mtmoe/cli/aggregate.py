"""`mtmoe aggregate`: the experts of several checkpoints in one model."""

from __future__ import annotations

import argparse
import sys

from mtmoe.errors import ConfigError
from mtmoe.files import check_checkpoint_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("checkpoints", metavar="CHECKPOINT", nargs="+", help="two or more")
    parser.add_argument("--output", required=True, metavar="OUT", help="the joint checkpoint")
    parser.add_argument(
        "--dense", default="average", metavar="average|N",
        help="weights outside of experts: the average (the default), or those of checkpoint N",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Join and write; the file's name goes to standard output.

    Raises:
        ConfigError, CheckpointError: a wrong option, or checkpoints that do not fit each other.
    """
    number = read_dense(args.dense, len(args.checkpoints))
    check_checkpoint_output("--output", args.output, args.checkpoints)
    from mtmoe.checkpoint.fairseq_file import load_checkpoint, write_checkpoint
    from mtmoe.surgery.aggregate import aggregate, check_parents
    from mtmoe.surgery.scratch import Scratch
    from mtmoe.surgery.state import count_parameters, describe_change

    parents = [load_checkpoint(path, is_mapped=True) for path in args.checkpoints]
    check_parents(parents, args.checkpoints)
    state = aggregate(parents, Scratch.beside(args.output), number)
    write_checkpoint(args.output, state)
    before, after = (count_parameters(m) for m in (parents[0].weights, state["model"]))
    sys.stderr.write(f"{before / 1e6:.1f}M parameters each, {after / 1e6:.1f}M together\n")
    sys.stderr.write(describe_change(parents[0].config, state))
    sys.stdout.write(f"{args.output}\n")


def read_dense(text: str, num_checkpoints: int) -> int | None:
    """The checkpoint (from 0) that the option names, or None for the average.

    Raises:
        ConfigError: it names none, or there is nothing to aggregate.
    """
    if num_checkpoints < 2:
        raise ConfigError("aggregate must be given two or more checkpoints, but one is. Add one.")
    if text == "average":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= num_checkpoints:
        raise ConfigError(
            f"--dense must be average or a number from 1 to {num_checkpoints}, but is {text!r}."
        )
    return int(text) - 1
