"""`mtmoe prune`: a checkpoint with the experts that are needed most."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtmoe.cli.measured_text import (
    add_text_arguments,
    check_text_arguments,
    choose_directions,
    choose_languages,
    measure,
    text_files,
)
from mtmoe.cli.seed import read_seed
from mtmoe.errors import ConfigError
from mtmoe.files import (
    check_checkpoint_output,
    check_input,
    check_output,
    check_two_files,
    open_atomic,
)

if TYPE_CHECKING:
    from torch import Tensor

    from mtmoe.checkpoint.fairseq_file import Checkpoint
    from mtmoe.modules.usage import ExpertUse

USUAL_SEED = 1
CRITERIA = ("importance", "use", "norm", "random")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("--output", required=True, metavar="OUT", help="the smaller checkpoint")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument(
        "--keep", type=read_sides, metavar="N[,M]",
        help="experts left in each layer; with M, that in decoder layers",
    )  # fmt: skip
    budget.add_argument(
        "--total", type=read_sides, metavar="N,M",
        help="experts left over all encoder layers and over all decoder layers, the best of each "
        "side by one threshold",
    )  # fmt: skip
    parser.add_argument(
        "--floor", type=int, default=1, metavar="N", help="with --total, experts left in any layer"
    )
    parser.add_argument(
        "--criterion", choices=CRITERIA, default="importance",
        help="importance (the default): share of first choices * exp(mean confidence); use: share "
        "of choices; norm: share of choices * norm of the weights; random",
    )  # fmt: skip
    parser.add_argument("--seed", type=read_seed, default=USUAL_SEED, help="of --criterion random")
    parser.add_argument(
        "--stats", nargs="+", metavar="STATS", help="of `mtmoe expert-stats`, in place of --text"
    )
    add_text_arguments(parser)
    parser.add_argument(
        "--directions", metavar="en-de,...",
        help="keep what these need: encoder experts by source, decoder experts by target language",
    )  # fmt: skip
    parser.add_argument(
        "--merge", action="store_true", help="merge the experts that go into those that stay"
    )
    parser.add_argument(
        "--dense", action="store_true",
        help="with one expert a layer: write plain feed-forward layers",
    )  # fmt: skip
    parser.add_argument(
        "--keep-optimizer", action="store_true",
        help="cut the optimizer's state, too, for --restore-file; else it is left out",
    )  # fmt: skip
    parser.add_argument("--report", metavar="FILE", help="what stayed and the sizes, as JSON")


def read_sides(text: str) -> tuple[int, int]:
    """`4` or `4,2`: for encoder and decoder.

    Raises:
        ConfigError: it is neither.
    """
    parts = text.split(",")
    if len(parts) > 2 or not all(re.fullmatch(r"\s*-?[0-9]{1,9}\s*", part) for part in parts):
        raise ConfigError(
            f"experts to keep must be N or N,M, but are {text!r:.80}. Write for example 4."
        )
    return int(parts[0]), int(parts[-1])


def run(args: argparse.Namespace) -> None:
    """Find out what is needed, select, write; the file's name goes to standard output.

    Raises:
        ConfigError, DataError, CheckpointError: a wrong option, text, file or checkpoint.
    """
    check_arguments(args)
    from mtmoe.checkpoint.fairseq_file import load_checkpoint, write_checkpoint
    from mtmoe.surgery.budget import apply_to_sides, check_keep, check_total
    from mtmoe.surgery.scores import Criterion, score_experts

    checkpoint = load_checkpoint(args.checkpoint, is_mapped=True)
    if args.keep:
        check_keep(checkpoint, args.keep)
    else:
        check_total(checkpoint, args.total, args.floor)
    uses, directions = find_uses(checkpoint, args)
    scores = score_experts(checkpoint, Criterion(args.criterion), uses, directions, args.seed)
    kept = apply_to_sides(checkpoint, scores, args.keep, args.total, args.floor)
    state = make_state(checkpoint, args, kept, uses, directions)
    write_checkpoint(args.output, state)
    tell(args, checkpoint, kept, state)
    sys.stdout.write(f"{args.output}\n")


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse wrong options before the model is loaded.

    Raises:
        ConfigError, DataError: says what must be given.
    """
    check_text_arguments(args)
    check_outputs(args)
    needs_use = args.criterion != "random" or args.merge
    if args.stats and args.text:
        raise ConfigError("--stats must be given without --text, but both are. Leave one out.")
    if needs_use and not (args.stats or args.text):
        raise ConfigError(
            f"--criterion {args.criterion}{' with --merge' if args.merge else ''} must be given "
            "--stats or --text, but neither is there. Give one."
        )
    for option in ("languages", "directions"):
        if getattr(args, option) and not (args.stats or args.text):
            raise ConfigError(f"--{option} must be given with --stats or --text, but neither is.")
    if args.seed != USUAL_SEED and args.criterion != "random":
        raise ConfigError(
            f"--seed must be given with --criterion random, but it is {args.criterion}."
        )
    if args.keep and args.floor != 1:
        raise ConfigError("--floor must be given with --total, but --keep is. Leave one out.")
    if args.languages and args.directions:
        raise ConfigError("--languages must be given without --directions, but both are.")
    if args.dense and args.keep_optimizer:
        raise ConfigError("--dense must be given without --keep-optimizer, but both are.")
    for path in args.stats or ():
        check_input("--stats", path)


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse files that could not be written, or that would replace one that is read or written.

    Raises:
        ConfigError: says what must be given.
    """
    inputs = [args.checkpoint, *(args.stats or ()), *text_files(args)]
    check_checkpoint_output("--output", args.output, inputs)
    check_output("--report", args.report, inputs)
    check_two_files("--report", args.report, "--output", args.output)


def find_uses(
    checkpoint: Checkpoint, args: argparse.Namespace
) -> tuple[dict[str, ExpertUse], list[str]]:
    """The measured use by direction, and the directions that count.

    Raises:
        ConfigError, DataError: what is asked for was not measured.
    """
    from mtmoe.report.expert_statistics import check_fits, read_statistics
    from mtmoe.surgery.scores import check_scope

    languages = choose_languages(args.languages, checkpoint.vocabulary.languages)
    if args.stats:
        statistics = read_statistics(args.stats)
        check_fits(statistics, checkpoint, args.checkpoint)
    elif args.text:
        statistics = measure(checkpoint, args)
    else:
        return {}, []
    if args.directions:
        wanted = [name.strip() for name in args.directions.split(",") if name.strip()]
    elif args.languages:
        wanted = [d for d in choose_directions(checkpoint, languages) if d in statistics.uses]
    else:
        wanted = list(statistics.uses)
    if not wanted:
        raise ConfigError(
            "--directions or --languages must leave a direction that was measured, but leave none "
            f"of {', '.join(statistics.uses)}. Name others."
        )
    check_scope(statistics.uses, wanted)
    return statistics.uses, wanted


def make_state(
    checkpoint: Checkpoint,
    args: argparse.Namespace,
    kept: Sequence[Tensor],
    uses: dict[str, ExpertUse],
    directions: Sequence[str],
) -> dict[str, Any]:
    """The contents of the smaller checkpoint."""
    from mtmoe.surgery.densify import check_dense, densify
    from mtmoe.surgery.prune import prune_checkpoint, with_numbers
    from mtmoe.surgery.scratch import Scratch

    config = with_numbers(checkpoint.config, [len(experts) for experts in kept])
    if args.dense:
        check_dense(config)
    scratch = Scratch.beside(args.output)
    state = prune_checkpoint(checkpoint, kept, scratch, args.keep_optimizer)
    if args.merge:
        from mtmoe.surgery.merge import merge_pruned
        from mtmoe.surgery.scores import mean_load

        merge_pruned(checkpoint, kept, mean_load(uses, directions), state["model"])
    return densify(state, config) if args.dense else state


def tell(
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    kept: Sequence[Tensor],
    state: dict[str, Any],
) -> None:
    """What stayed, the sizes, and how the result trains on: for people, and as JSON."""
    from mtmoe.checkpoint.sharded import stored_bytes
    from mtmoe.surgery.state import count_parameters, describe_change

    names = checkpoint.config.moe_layer_names
    by_layer = {name: experts.tolist() for name, experts in zip(names, kept, strict=True)}
    sizes = [count_parameters(weights) for weights in (checkpoint.weights, state["model"])]
    bytes_ = [stored_bytes(path) for path in (args.checkpoint, args.output)]
    for name, experts in by_layer.items():
        sys.stderr.write(f"{name}: kept experts {' '.join(map(str, experts))}\n")
    sys.stderr.write(
        f"{sizes[0] / 1e6:.1f}M parameters before, {sizes[1] / 1e6:.1f}M after; "
        f"{bytes_[0] / 2**20:.1f} MiB before, {bytes_[1] / 2**20:.1f} MiB after\n"
    )
    sys.stderr.write(describe_change(checkpoint.config, state))
    if args.report:
        report = {
            "kept": by_layer,
            "criterion": args.criterion,
            "parameters": {"before": sizes[0], "after": sizes[1]},
            "file_bytes": {"before": bytes_[0], "after": bytes_[1]},
        }
        with open_atomic(args.report) as file:
            file.write(json.dumps(report, indent=1) + "\n")
