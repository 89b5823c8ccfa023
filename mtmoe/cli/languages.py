"""`mtmoe languages`: what a model translates."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The argument of the command."""
    parser.add_argument("model", metavar="MODEL", help="checkpoint_*.pt")


def run(args: argparse.Namespace) -> None:
    """Write a direction that the model was trained on a line, e.g. en-de.

    Raises:
        CheckpointError: the file is missing, damaged or no checkpoint of ours.
    """
    from mtmoe.checkpoint.fairseq_file import load_checkpoint

    checkpoint = load_checkpoint(args.model)
    sys.stdout.write("".join(f"{direction}\n" for direction in checkpoint.directions))
    languages = ", ".join(checkpoint.vocabulary.languages)
    sys.stderr.write(f"{len(checkpoint.vocabulary.languages)} languages: {languages}\n")
