"""Commands that translate under torchrun: rank 0 is the command, the others serve it."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mtmoe.errors import ConfigError

if TYPE_CHECKING:
    from mtmoe.inference.engine import Translator
    from mtmoe.inference.ranks import Ranks


def add_rank_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of commands that run under torchrun, too."""
    parser.add_argument(
        "--expert-parallel-size", type=int, default=1, metavar="E",
        help="under torchrun: ranks that share the experts out, where a model does not fit one; "
        "the number of ranks must be a multiple (default 1: each rank has all experts)",
    )  # fmt: skip


def is_first_rank() -> bool:
    """Whether this process is rank 0, or the only one."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def open_ranks(args: argparse.Namespace) -> Iterator[Ranks | None]:
    """The ranks that torchrun has started; None for one process. All must enter it.

    Raises:
        ConfigError, LayoutError: options that do not go with them.
    """
    num_ranks, size = int(os.environ.get("WORLD_SIZE", "1")), args.expert_parallel_size
    if num_ranks == size == 1:
        yield None
        return
    if num_ranks > 1 and args.threads not in (None, 1):
        raise ConfigError(
            f"--threads must be left out under torchrun, but is {args.threads}. Each rank has one "
            "thread: start as many ranks as there are cores."
        )
    if size > 1 and getattr(args, "explain", False):
        raise ConfigError(
            f"--expert-parallel-size must be 1 with --explain, but is {size}. Leave one out."
        )
    from mtmoe.inference.ranks import join_ranks

    with join_ranks(size) as ranks:
        yield ranks


def serve_ranks(args: argparse.Namespace) -> None:
    """What the command is on another rank than 0: all options but those of the model are 0's."""
    with open_ranks(args) as ranks:
        load_model(args, ranks).serve()


def load_model(args: argparse.Namespace, ranks: Ranks | None) -> Translator:
    """The model that the command line names; this rank's part of it.

    Raises:
        ConfigError, CheckpointError: a wrong option, or no checkpoint.
    """
    from mtmoe.inference.engine import Translator

    return Translator.from_checkpoint(
        args.model,
        args.device,
        args.dtype,
        args.threads,
        args.expert_memory,
        ranks,
        args.expert_dtype,
    )
