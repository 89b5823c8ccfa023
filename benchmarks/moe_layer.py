"""Time of mtmoe's MoE layer, and of other libraries', over that of a dense network of equal FLOPs.

Rows: `dense` (stock torch, the reference), `mtmoe` (backend auto), `torch` (mtmoe's definition);
with --peers, after `bash benchmarks/peers.sh`, `huggingface` (Switch for top-1, NLLB-MoE for
top-2), `huggingface_grouped` (NemotronH's experts by grouped_mm) and `deepspeed`. All are dropless,
without noise, with near-uniform routers. Passes: fwd, forward in evaluation; fwdbwd, forward and
backward in training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from benchmarks.machine import (
    PEERS,
    describe_commit,
    describe_device,
    describe_versions,
    today,
)
from benchmarks.moe_cell import Cell
from benchmarks.moe_options import parse_arguments
from benchmarks.moe_results import Result, compare, to_markdown
from benchmarks.remarks import say, warn_of_spinning
from benchmarks.round_robin import (
    WARM_UPS,
    Row,
    RowError,
    Worker,
    build_rows,
    open_workers,
    time_rows,
)
from benchmarks.timings import write_entries
from mtmoe.errors import MtmoeError, run_command

OWN_ROWS = ("dense", "mtmoe", "torch")
PEER_ROWS = ("huggingface", "huggingface_grouped", "deepspeed")
NLLB_NOTE = (
    "huggingface for top-2 is NLLB-MoE, which in transformers 5 sends (experts - 1) rows of each "
    "token to one expert, and does not give the mixture that the other rows give"
)


def main() -> None:
    """Measure what the command line asks for, write the tables to standard output."""
    args = parse_arguments(sys.argv[1:], __doc__)
    if args.profile:
        sys.stdout.write(profile_cell(args) + "\n")
        return
    results = measure(args)
    if not results:
        raise MtmoeError("no cell could be measured, see the lines above.")
    sys.stdout.write(f"{describe(args)}\n\n{to_markdown(results)}\n")
    if args.plot:
        from benchmarks.moe_plot import draw_ratios

        draw_ratios(results, args.plot, f"MoE layer on {describe_device(args.device)}")


def rows_of(args: argparse.Namespace) -> list[Row]:
    """The rows, the reference first."""
    rows = [Row(name, f"benchmarks.moe_rows:build_{name}") for name in OWN_ROWS]
    if args.peers:
        python = str(PEERS / "bin" / "python")
        rows += [Row(name, f"benchmarks.moe_peers:build_{name}", python) for name in PEER_ROWS]
    return rows


def measure(args: argparse.Namespace) -> list[Result]:
    """Time all cells, say each on standard error, and keep the JSON file up to date."""
    results: list[Result] = []
    total = len(args.cells) * len(args.passes) * (WARM_UPS + args.rounds)
    is_hidden = not sys.stderr.isatty()
    with (
        open_workers(rows_of(args), args.threads) as workers,
        tqdm(total=total, unit=" rounds", disable=is_hidden) as bar,
    ):
        for number, cell in enumerate(args.cells, 1):
            found = measure_cell(args, workers, cell, bar)
            say(f"[{number}/{len(args.cells)}] {cell}: {_summary(found)}")
            results += found
            if args.json:
                write_entries([result.as_dict() for result in results], args.json)
        warn_of_spinning(workers)
    return results


def measure_cell(
    args: argparse.Namespace, workers: dict[str, Worker], cell: Cell, bar: tqdm[Any]
) -> list[Result]:
    """Time one cell in all rows that can; a line on standard error for each that cannot."""

    def on_failure(row: str, error: RowError) -> None:
        say(f"{row} has no figure for {cell}: {error}")

    results = []
    options = dict.fromkeys(workers, options_of(cell, args.threads))
    able = build_rows(workers, options, on_failure)
    for name in args.passes:
        calls = dict.fromkeys(able, name)
        timings = time_rows(able, calls, args.rounds, on_failure, bar.update)
        for row, seconds in timings.items():
            if len(seconds) < args.rounds:
                say(f"{row} is slow: {name} of {cell} was timed {len(seconds)} times only.")
        results += compare(cell, name, timings)
    return results


def options_of(cell: Cell, threads: int) -> dict[str, Any]:
    """What a worker is told of a cell."""
    return asdict(cell) | {"threads": threads}


def _summary(results: Sequence[Result]) -> str:
    return ", ".join(f"{r.row} {r.pass_name} {r.ratio:.2f}" for r in results) or "no figures"


def profile_cell(args: argparse.Namespace) -> str:
    """Where the time of the mtmoe row goes in one cell, as Markdown."""
    from benchmarks import moe_profile

    parts = [describe(args)]
    row = Row("profile", "benchmarks.moe_profile:build")
    with open_workers([row], args.threads) as workers:
        (cell,) = args.cells
        workers[row.name].build(options_of(cell, args.threads))
        for name in args.passes:
            found = workers[row.name].run(name)["value"]
            parts.append(moe_profile.to_markdown(f"mtmoe, {cell}, {name}", found))
    return "\n\n".join(parts)


def describe(args: argparse.Namespace) -> str:
    """The head of the output: machine, versions, settings."""
    lines = [
        f"MoE layer, D {args.dim}, F {args.ffn_dim}",
        f"machine: {describe_device(args.device)}; threads: {args.threads}",
        f"versions: {describe_versions(['torch'])}, mtmoe commit {describe_commit()}",
        f"rounds: {args.rounds}; date: {today()}",
    ]
    if args.peers:
        found = describe_versions(["torch", "transformers", "deepspeed"], PEERS)
        lines.insert(3, f"peers: {found}; Switch and grouped have no biases")
        if 2 in args.top_k:
            lines.append(f"note: {NLLB_NOTE}")
    return "\n".join(f"- {line}" for line in lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
