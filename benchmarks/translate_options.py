"""The command line of the translation benchmark."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.machine import TRANSLATE_PEERS, num_cores
from benchmarks.options import check_peers, check_threads, read_number, read_numbers
from benchmarks.translate_models import FULL, QUICK
from mtmoe.cli.main import Parser
from mtmoe.errors import ConfigError
from mtmoe.files import check_output

MAX_BEAM = 200


def parse_arguments(words: Sequence[str], description: str | None) -> argparse.Namespace:
    """The options of the command, checked; `sizes` and what follows from --quick is filled in.

    Raises:
        ConfigError: names the option that has a wrong value.
    """
    parser = Parser(
        "python -m benchmarks.translate",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peers", action="store_true", help="fairseq and other programs too")
    parser.add_argument("--json", metavar="FILE", help="the numbers, written after each beam")
    parser.add_argument(
        "--quick", action="store_true", help="tiny models and two rounds: does all of it run?"
    )
    parser.add_argument(
        "--only", metavar="TEXT,...",
        help="rows whose names hold one of these, e.g. 'mtmoe dense' or 'moe16 float32'",
    )  # fmt: skip
    parser.add_argument("--rounds", metavar="N", help="timed calls of each row (4; --quick: 2)")
    parser.add_argument("--beams", default="1,4", metavar="N,...")
    parser.add_argument(
        "--batches", metavar="N,...",
        help="sentences of a batch that each row may choose among (16,32,64; --quick: 4,8)",
    )  # fmt: skip
    parser.add_argument("--threads", default=str(num_cores()), metavar="N", help="of each row")
    args = parser.parse_args(words)
    args.sizes = QUICK if args.quick else FULL
    args.rounds = read_number("rounds", args.rounds or ("2" if args.quick else "4"))
    args.batches = read_numbers("batches", args.batches or ("4,8" if args.quick else "16,32,64"))
    args.beams = read_numbers("beams", args.beams)
    args.threads = read_number("threads", args.threads)
    _check(args)
    return args


def _check(args: argparse.Namespace) -> None:
    check_threads(args.threads)
    if max(args.beams) > MAX_BEAM:
        raise ConfigError(f"--beams must be at most {MAX_BEAM}, but is {max(args.beams)}.")
    if args.peers:
        check_peers(TRANSLATE_PEERS)
    check_output("--json", args.json)
