"""`mtmoe convert`: models from and to other programs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mtmoe.errors import ConfigError
from mtmoe.files import check_output

if TYPE_CHECKING:
    from mtmoe.interop.foreign_model import ForeignModel

OURS, HUGGINGFACE, CTRANSLATE2 = "mtmoe", "huggingface", "ctranslate2"
BILLION = 1_000_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "source", metavar="MODEL",
        help="a folder of Hugging Face (M2M-100, NLLB, NLLB-MoE), a checkpoint of fairseq's "
        "transformer or of its nllb branch (the -shared file), or a checkpoint of ours",
    )  # fmt: skip
    parser.add_argument(
        "--to", choices=(OURS, HUGGINGFACE, CTRANSLATE2), default=OURS,
        help="what to write: a checkpoint of ours (the default), or a folder for another program",
    )  # fmt: skip
    parser.add_argument("--output", required=True, metavar="OUT", help="file or folder to write")
    parser.add_argument(
        "--shard-gb", type=float, default=5.0, metavar="GB",
        help="split weights into files of at most so many GB (default %(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Convert; wrong options are refused before weights are read.

    Raises:
        ConfigError, CheckpointError, DataError: a user's mistake.
        OSError: the disk is full; nothing is left behind.
    """
    if args.shard_gb <= 0:
        raise ConfigError(f"--shard-gb must be above 0, but is {args.shard_gb}. Give more.")
    if args.to == OURS:
        check_output("--output", args.output)
        from mtmoe.interop.foreign_model import import_model

        import_model(_read_foreign(args), args.output)
    else:
        _export(args)
    sys.stdout.write(f"{args.output}\n")


def _read_foreign(args: argparse.Namespace) -> ForeignModel:
    from mtmoe.interop.huggingface_in import read_folder

    return read_folder(Path(args.source))


def _export(args: argparse.Namespace) -> None:
    from mtmoe.interop.output_folder import check_new_folder, folder_atomic

    check_new_folder("--output", args.output)
    from mtmoe.checkpoint.fairseq_file import load_checkpoint
    from mtmoe.interop.huggingface_out import write_folder
    from mtmoe.interop.one_expert import as_dense

    checkpoint = as_dense(load_checkpoint(args.source, mmap=True))
    with folder_atomic(args.output) as folder:
        write_folder(checkpoint, folder, int(args.shard_gb * BILLION))
