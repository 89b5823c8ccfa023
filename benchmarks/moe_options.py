"""The command line of the MoE layer's benchmark."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import product

from benchmarks.machine import PEERS, num_cores
from benchmarks.moe_cell import DEVICES, DTYPES, PASSES, Cell
from benchmarks.options import check_gpu, check_peers, check_threads, read_number, read_numbers
from mtmoe.cli.main import Parser
from mtmoe.errors import ConfigError
from mtmoe.files import check_output


def parse_arguments(words: Sequence[str], description: str | None) -> argparse.Namespace:
    """The options of the command, checked; lists are split, `cells` made.

    Raises:
        ConfigError: names the option that has a wrong value.
    """
    parser = Parser(
        "python -m benchmarks.moe_layer",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peers", action="store_true", help="other libraries too")
    parser.add_argument("--json", metavar="FILE", help="the numbers, written after each cell")
    parser.add_argument("--plot", metavar="FILE", help="a PNG of the ratio over the experts")
    parser.add_argument("--rounds", default="10", metavar="N", help="timed calls of each row")
    parser.add_argument("--experts", default="4,8,16,32,64,128", metavar="N,...")
    parser.add_argument("--tokens", default="1024,8192", metavar="N,...")
    parser.add_argument("--top-k", default="1,2", metavar="N,...")
    parser.add_argument("--dtypes", default=",".join(DTYPES), metavar="NAME,...")
    parser.add_argument("--passes", default=",".join(PASSES), metavar="NAME,...")
    parser.add_argument("--threads", default=str(num_cores()), metavar="N", help="of each row")
    parser.add_argument("--device", default="cpu", choices=DEVICES)
    parser.add_argument("--dim", default="512", metavar="D", help="width of the model")
    parser.add_argument("--ffn-dim", default="2048", metavar="F", help="width of an expert")
    parser.add_argument(
        "--profile",
        metavar="CELL",
        help="in place of the tables: where the mtmoe row's time goes in one cell, beside this "
        "machine's limits; tokens, experts, top-k, dtype, e.g. 8192,16,1,float32",
    )
    args = _split(parser.parse_args(words))
    check(args)
    args.cells = list(_cells(args))
    return args


def _split(args: argparse.Namespace) -> argparse.Namespace:
    if args.profile is not None:
        words = args.profile.split(",")
        if len(words) != 4:
            raise ConfigError(
                "--profile must be tokens, experts, top-k and dtype with commas between, e.g. "
                f"8192,16,1,float32, but is {args.profile!r}."
            )
        args.tokens, args.experts, args.top_k, args.dtypes = words
    for name in ("rounds", "threads", "dim", "ffn_dim"):
        setattr(args, name, read_number(name, getattr(args, name)))
    for name in ("experts", "tokens", "top_k"):
        setattr(args, name, read_numbers(name, getattr(args, name)))
    for name, allowed in (("dtypes", DTYPES), ("passes", PASSES)):
        words = list(dict.fromkeys(getattr(args, name).split(",")))
        wrong = [word for word in words if word not in allowed]
        if wrong:
            raise ConfigError(f"--{name} must be of {', '.join(allowed)}, but is {wrong[0]!r}.")
        setattr(args, name, words)
    return args


def check(args: argparse.Namespace) -> None:
    """Refuse, before anything is timed, what cannot be measured or written.

    Raises:
        ConfigError: names the option.
    """
    check_threads(args.threads)
    if args.device == "cuda":
        check_gpu()
        if args.profile is not None:
            raise ConfigError(
                "--profile must be without --device cuda, but is with it. Use "
                "benchmarks.gpu_kernels."
            )
    if max(args.top_k) > min(args.experts):
        raise ConfigError(
            f"--top-k must be at most the fewest --experts ({min(args.experts)}), but is "
            f"{max(args.top_k)}."
        )
    if args.dim % 2:
        raise ConfigError(f"--dim must be even, but is {args.dim}.")
    if args.peers:
        check_peers(PEERS)
    for option in ("json", "plot"):
        check_output(f"--{option}", getattr(args, option))


def _cells(args: argparse.Namespace) -> Iterator[Cell]:
    sizes = product(args.dtypes, args.top_k, args.tokens, args.experts)
    for dtype, top_k, tokens, experts in sizes:
        yield Cell(tokens, experts, top_k, dtype, args.dim, args.ffn_dim, args.device)
