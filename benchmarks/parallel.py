"""Time of an update by layout of ranks on this machine (gloo), and what TED's options cost or save.

Tables: `layouts`, one process that uses both cores, each axis with 2 ranks, ZeRO, and recomputation
with and without sending again (CAC); `ted`, 4 ranks, which share the cores: expert 2 x tensor 2
with and without duplicate token dropping (DTD), and recomputation. Every row of these makes the
same updates of the same 2 batches, so the losses must be equal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tqdm import tqdm

from benchmarks.machine import (
    describe_commit,
    describe_machine,
    describe_versions,
    num_cores,
    today,
)
from benchmarks.parallel_results import (
    Result,
    loss_difference,
    make_results,
    to_markdown,
    write_json,
)
from benchmarks.round_robin import WARM_UPS, Row, RowError, open_workers
from mtmoe.cli.main import Parser
from mtmoe.errors import ConfigError, MtmoeError, run_command
from mtmoe.files import check_output

BUILD = "benchmarks.parallel_rows:build"
MAX_LOSS_DIFFERENCE = 1e-3  # float32 sums in other orders


@dataclass(frozen=True)
class Layout:
    """A row; `reference` is the one that it is compared with."""

    row: str
    reference: str
    data: int = 1
    expert: int = 1
    tensor: int = 1
    zero: str = "none"
    deduplicate: bool = False
    checkpoint: str = "none"
    threads: int = 1  # of each rank


ONE, TED = "one process", "expert 2 x tensor 2"
TABLES = {
    "layouts": [
        Layout(ONE, ONE, threads=min(2, num_cores())),
        Layout("data 2", ONE, data=2),
        Layout("data 2, ZeRO-2", ONE, data=2, zero="gradients"),
        Layout("data 2, ZeRO-3", ONE, data=2, zero="parameters"),
        Layout("expert 2", ONE, expert=2),
        Layout("tensor 2", ONE, tensor=2),
        Layout("expert 2, recomputed", "expert 2", expert=2, checkpoint="full"),
        Layout(
            "expert 2, recomputed with CAC",
            "expert 2, recomputed",
            expert=2,
            checkpoint="keep_communication",
        ),
    ],
    "ted": [
        Layout(TED, TED, expert=2, tensor=2),
        Layout(f"{TED}, DTD", TED, expert=2, tensor=2, deduplicate=True),
        Layout(f"{TED}, recomputed", TED, expert=2, tensor=2, checkpoint="full"),
        Layout(
            f"{TED}, recomputed with CAC",
            f"{TED}, recomputed",
            expert=2,
            tensor=2,
            checkpoint="keep_communication",
        ),
        Layout(
            f"{TED}, recomputed with CAC, DTD",
            f"{TED}, recomputed",
            expert=2,
            tensor=2,
            checkpoint="keep_communication",
            deduplicate=True,
        ),
    ],
}


def main() -> None:
    """Measure what the command line asks for, write the tables to standard output."""
    args = parse_arguments(sys.argv[1:])
    layouts = [layout for table in args.tables for layout in TABLES[table]]
    results = measure(layouts, args.rounds, {"dim": args.dim, "tokens": args.tokens})
    if args.json:
        write_json(results, args.json)
    difference = loss_difference(results)
    sys.stdout.write(f"{describe(args)}\n- largest difference of losses: {difference:.1e}\n\n")
    sys.stdout.write(to_markdown(results) + "\n")
    if difference > MAX_LOSS_DIFFERENCE:
        raise MtmoeError(
            f"the rows' losses must be equal within {MAX_LOSS_DIFFERENCE:.0e}, but differ by "
            f"{difference:.1e}: their times are not those of the same training."
        )


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """The options of the command, checked.

    Raises:
        ConfigError: names the option that has a wrong value.
    """
    parser = Parser(
        "python -m benchmarks.parallel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--tables",
        default="layouts,ted",
        metavar="NAMES",
        help="what to measure: layouts, ted",
    )
    parser.add_argument(
        "--rounds", type=int, default=10, metavar="N", help="timed updates of a row"
    )
    parser.add_argument("--dim", type=int, default=256, metavar="D", help="width of the model")
    parser.add_argument("--tokens", type=int, default=512, metavar="N", help="of each of 2 batches")
    parser.add_argument("--json", metavar="FILE", help="the numbers, too")
    args = parser.parse_args(words)
    for name, of in (("rounds", 1), ("dim", 32), ("tokens", 32)):
        if getattr(args, name) < 1 or getattr(args, name) % of:
            raise ConfigError(f"--{name} must be a multiple of {of}, but is {getattr(args, name)}.")
    args.tables = args.tables.split(",")
    for table in args.tables:
        if table not in TABLES:
            raise ConfigError(f"--tables must be of {', '.join(TABLES)}, but one is {table!r}.")
    check_output("--json", args.json)
    return args


def measure(layouts: Sequence[Layout], rounds: int, sizes: dict[str, int]) -> list[Result]:
    """Time all layouts in turns; a line on standard error for each that cannot be timed."""
    rows = [Row(layout.row, BUILD) for layout in layouts]
    replies: dict[str, list[dict[str, Any]]] = {row.name: [] for row in rows}
    is_hidden = not sys.stderr.isatty()
    with open_workers(rows, 1) as workers, tqdm(total=rounds, disable=is_hidden) as bar:
        for layout in layouts:
            attempt(replies, layout.row, workers[layout.row].build, asdict(layout) | sizes)
        for number in range(WARM_UPS + rounds):
            for row in list(replies):
                reply = attempt(replies, row, workers[row].run, "update")
                if reply and number >= WARM_UPS:
                    replies[row].append(reply)
            bar.update()
        counts = {row: workers[row].run("count")["value"] for row in replies}
    results = make_results({layout.row: layout.reference for layout in layouts}, replies, counts)
    if not results:
        raise MtmoeError("no layout could be measured, see the lines above.")
    return results


def attempt(rows: dict[str, Any], row: str, ask: Callable[..., Any], request: Any) -> Any:
    """What the row's worker answers; None if it fails: the row then is out of `rows`."""
    try:
        return ask(request)
    except RowError as error:
        del rows[row]
        say(f"{row} has no figure: {error}")
        return None


def describe(args: argparse.Namespace) -> str:
    """The head of the output: machine, versions, settings."""
    lines = [
        f"an update of 4+4 layers, every second one with 8 experts, D {args.dim}, "
        f"F {4 * args.dim}, top-1, dropless, 2 batches of {args.tokens} tokens, float32, Adam",
        f"machine: {describe_machine()}; gloo, 1 thread a rank, one process: 2",
        f"versions: {describe_versions(['torch'])}, mtmoe commit {describe_commit()}",
        f"rounds: {args.rounds}; date: {today()}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def say(line: str) -> None:
    """A line on standard error, above the progress bar if there is one."""
    tqdm.write(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_command(main))
