"""`mtmoe usage`: which experts a model uses, by language and layer, as a picture and as numbers."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mtmoe.errors import CheckpointError, ConfigError
from mtmoe.files import check_output, check_two_files, open_atomic


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--model", required=True, metavar="CHECKPOINT")
    parser.add_argument("--text", required=True, metavar="FOLDER", help="text/ of a prepared run")
    parser.add_argument("--split", default="valid", help="which files of it: train, valid or test")
    parser.add_argument(
        "--limit", type=int, default=200, metavar="N", help="the first N sentences of each pair"
    )
    parser.add_argument("--output", required=True, metavar="PNG", help="the picture")
    parser.add_argument("--json", metavar="FILE", help="the numbers, by direction")


def run(args: argparse.Namespace) -> None:
    """Measure, draw, and write the picture's path to standard output.

    Raises:
        ConfigError: a wrong option value.
        CheckpointError: the checkpoint cannot be read, or its model has no experts.
        DataError: the text cannot be read, or is of a language that the model does not know.
    """
    if args.limit < 1:
        raise ConfigError(f"--limit must be at least 1, but is {args.limit}. Give 1 or more.")
    inputs = [args.model, *(str(path) for path in Path(args.text).glob(f"{args.split}.*"))]
    for option in ("output", "json"):
        check_output(f"--{option}", getattr(args, option), inputs)
    check_two_files("--json", args.json, "--output", args.output)
    from mtmoe.checkpoint.fairseq_file import load_checkpoint
    from mtmoe.report.parallel_text import read_directions
    from mtmoe.report.plots import draw_expert_use
    from mtmoe.report.usage import describe_use, measure_text, use_by_language

    texts = read_directions(args.text, args.split, args.limit)
    checkpoint = load_checkpoint(args.model)
    if not checkpoint.config.moe_layer_names:
        raise CheckpointError(f"model must have MoE layers, but {args.model} is dense.")
    model = checkpoint.build_model()
    uses = {text.direction: measure_text(checkpoint, model, text) for text in texts}
    title = f"Expert use of {Path(args.model).name} on {args.split} text"
    draw_expert_use(use_by_language(uses), args.output, title)
    if args.json:
        with open_atomic(args.json) as file:
            file.write(json.dumps(describe_use(uses), indent=1) + "\n")
    sys.stdout.write(f"{args.output}\n")
