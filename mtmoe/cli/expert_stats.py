"""`mtmoe expert-stats`: what each expert of each layer does in each direction."""

from __future__ import annotations

import argparse
import sys

from mtmoe.cli.measured_text import add_text_arguments, check_text_arguments, measure, text_files
from mtmoe.errors import CheckpointError, ConfigError
from mtmoe.files import check_input, check_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    add_text_arguments(parser)
    parser.add_argument(
        "--add", nargs="+", default=[], metavar="STATS",
        help="statistics of the same model on other text, to be added",
    )  # fmt: skip
    parser.add_argument("--output", required=True, metavar="STATS", help="the JSON file to write")


def run(args: argparse.Namespace) -> None:
    """Measure, add up, write; the file's name goes to standard output.

    Raises:
        ConfigError, DataError, CheckpointError: a wrong option, text, file or checkpoint.
    """
    check_text_arguments(args)
    check_output("--output", args.output, [args.checkpoint, *text_files(args)])  # --add may be it
    if not args.text and not args.add:
        raise ConfigError("--text must name files, but is not given. Give files, or --add STATS.")
    if args.languages and not args.text:
        raise ConfigError("--languages must be given with --text, but is given without it.")
    for path in args.add:
        check_input("--add", path)
    from mtmoe.checkpoint.fairseq_file import load_checkpoint
    from mtmoe.report.expert_statistics import check_fits, read_statistics, write_statistics

    checkpoint = load_checkpoint(args.checkpoint)
    if not checkpoint.config.moe_layer_names:
        raise CheckpointError(f"model must have MoE layers, but {args.checkpoint} is dense.")
    earlier = read_statistics(args.add) if args.add else None
    if earlier:
        check_fits(earlier, checkpoint, args.checkpoint)
    measured = measure(checkpoint, args) if args.text else None
    parts = [part for part in (earlier, measured) if part]
    total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    write_statistics(args.output, total)
    for direction, use in total.uses.items():
        tokens = ", ".join(map(str, use.tokens.sum(1).tolist()))
        sys.stderr.write(f"{direction}: tokens by layer {tokens}\n")
    sys.stdout.write(f"{args.output}\n")
