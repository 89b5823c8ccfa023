"""`mtmoe upcycle`: a dense checkpoint whose feed-forward layers become experts."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from mtmoe.cli.seed import read_seed
from mtmoe.errors import CheckpointError, ConfigError
from mtmoe.files import check_checkpoint_output

if TYPE_CHECKING:
    from mtmoe.config import TransformerConfig

FIXED = (  # what the dense model decides, or an option of its own
    "encoder_layers", "decoder_layers", "embed_dim", "ffn_dim", "activation", "attention_heads",
    "max_positions", "first_position", "moe_every", "num_experts", "experts_by_layer",
    "top_k", "shared_ffn_dim", "shared_mode",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("checkpoint", metavar="DENSE", help="a checkpoint without MoE layers")
    parser.add_argument(
        "--output", required=True, metavar="OUT", help="the checkpoint with experts"
    )
    parser.add_argument("--experts", type=int, required=True, metavar="N", help="in each MoE layer")
    parser.add_argument("--top-k", type=int, default=2, metavar="K", help="of a token (default 2)")
    parser.add_argument(
        "--moe-every", type=int, default=2, metavar="N",
        help="every n-th layer gets experts (default 2)",
    )  # fmt: skip
    parser.add_argument(
        "--shared", choices=("add", "mixed", "conditional"),
        help="keep the dense network beside the experts, too; with add, experts start at 0",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE",
        help="other settings of the model, e.g. router_input=token_and_language",
    )  # fmt: skip
    parser.add_argument(
        "--noise", type=float, default=0.0, metavar="X",
        help="add noise to the experts, X times as large as their weights (default 0)",
    )  # fmt: skip
    parser.add_argument(
        "--fresh-share", type=float, default=0.0, metavar="X",
        help="draw this share of each expert's hidden units anew (default 0)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=read_seed, default=1, help="of routers, noise and fresh units"
    )


def run(args: argparse.Namespace) -> None:
    """Make experts and write; the file's name goes to standard output.

    Raises:
        ConfigError, CheckpointError: a wrong option, a routing that does not begin as the dense
            model, or a checkpoint that is not dense.
    """
    check_checkpoint_output("--output", args.output, [args.checkpoint])
    from mtmoe.checkpoint.fairseq_file import load_checkpoint, write_checkpoint
    from mtmoe.config import check_router_languages
    from mtmoe.surgery.scratch import Scratch
    from mtmoe.surgery.state import count_parameters, describe_change
    from mtmoe.surgery.upcycle import Variation, check_dense_at_first, upcycle

    variation = Variation(args.noise, args.fresh_share, args.seed)
    dense = load_checkpoint(args.checkpoint, is_mapped=True)
    if dense.config.moe_layer_names:
        raise CheckpointError(
            f"checkpoint must be dense to be upcycled, but {args.checkpoint} has MoE layers. "
            "See `mtmoe prune --dense`."
        )
    config = make_config(dense.config, args)
    check_router_languages(config, dense.encoder_tags)
    check_dense_at_first(config)
    state = upcycle(dense, config, Scratch.beside(args.output), variation)
    write_checkpoint(args.output, state)
    before, after = (count_parameters(m) for m in (dense.weights, state["model"]))
    sys.stderr.write(f"{before / 1e6:.1f}M parameters before, {after / 1e6:.1f}M after\n")
    sys.stderr.write(describe_change(dense.config, state))
    sys.stdout.write(f"{args.output}\n")


def make_config(dense: TransformerConfig, args: argparse.Namespace) -> TransformerConfig:
    """The settings of the model to be.

    Raises:
        ConfigError: an option or a setting has a value it must not have.
    """
    from mtmoe.config import TransformerConfig, build_config
    from mtmoe.surgery.state import flat_settings

    if args.moe_every < 1:
        raise ConfigError(f"--moe-every must be at least 1, but is {args.moe_every}.")
    settings = flat_settings(dense)
    settings |= {"num_experts": args.experts, "top_k": args.top_k, "moe_every": args.moe_every}
    settings |= {"shared_ffn_dim": dense.ffn_dim if args.shared else 0}
    settings |= {"shared_mode": args.shared or "add"}
    return build_config(TransformerConfig, settings | read_settings(args.set, settings))


def read_settings(words: list[str], known: dict[str, Any]) -> dict[str, str]:
    """What `--set` gives.

    Raises:
        ConfigError: a word is no NAME=VALUE, or its setting cannot be chosen here.
    """
    free = [name for name in known if name not in FIXED]
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        if not value or name not in free:
            raise ConfigError(
                f"--set must be NAME=VALUE with one of {', '.join(free)}, but is {word!r}."
            )
        if name in found:
            raise ConfigError(f"--set must give each name once, but {name} twice. Leave one out.")
        found[name] = value
    return found
