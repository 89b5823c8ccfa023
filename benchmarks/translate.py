"""Output tokens per second of mtmoe's translation, and of other programs', for equal work.

Models of random weights translate sentences of mixed lengths into outputs of one forced length, so
that every row takes as many steps of the decoder. Each row runs in a process of its own, chooses
its fastest batch, and is then timed in turns with the others. Ratios are to CTranslate2 in float32
with one worker, where it is measured, else to mtmoe's own dense model in float32.

Models: dense (6+6 layers, D 512, F 2048); moe16, 16 experts of F on every second layer, top-2;
pruned4, 4 of these; dense_wide, a dense model (F 3072) of the active size of moe16 and pruned4.
With --peers, after `bash benchmarks/peers.sh`: fairseq's transformer under SequenceGenerator,
M2M-100 and NLLB-MoE of Hugging Face, CTranslate2 with one worker of all threads and with workers of
one thread each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import translate_targets
from benchmarks.machine import (
    TRANSLATE_PEERS,
    describe_commit,
    describe_machine,
    describe_versions,
    today,
)
from benchmarks.remarks import say, warn_of_spinning
from benchmarks.round_robin import Row, RowError, Worker, build_rows, open_workers, time_rows
from benchmarks.timings import write_entries
from benchmarks.translate_calls import Work, call_name, read_work
from benchmarks.translate_models import prepare
from benchmarks.translate_options import parse_arguments
from benchmarks.translate_results import Result, RowName, as_dicts, ratio_of, to_markdown
from mtmoe.errors import ConfigError, MtmoeError, run_command

ALL_DTYPES = ("float32", "bfloat16", "int8")
OWN_DTYPES = {
    "dense": ALL_DTYPES, "dense_wide": ("float32",), "moe16": ALL_DTYPES, "pruned4": ("float32",)
}  # fmt: skip
OnFailure = Callable[[str, RowError], object]


def main() -> None:
    """Measure what the command line asks for, write the table to standard output."""
    args = parse_arguments(sys.argv[1:], __doc__)
    rows = rows_of(args)
    with tempfile.TemporaryDirectory(prefix="benchmark") as name:
        folder = Path(name)
        say("making models and sentences")
        prepare(folder, args.sizes, args.peers)
        work = read_work(folder)
        results = measure(args, rows, work, folder)
    if not results:
        raise MtmoeError("no row could be measured, see the lines above.")
    parts = [describe(args, work), to_markdown(results), translate_targets.to_markdown(results)]
    sys.stdout.write("\n\n".join(filter(None, parts)) + "\n")


def rows_of(args: argparse.Namespace) -> list[RowName]:
    """The rows of all engines that --only lets pass.

    Raises:
        ConfigError: it lets none pass.
    """
    threads = args.threads
    own = [(model, dtype) for model, dtypes in OWN_DTYPES.items() for dtype in dtypes]
    rows = [RowName("mtmoe", *names, threads, 1) for names in own]
    if args.peers:
        rows.append(RowName("fairseq", "dense", "float32", 1, threads))
        for model in ("dense", "moe16"):
            rows.append(RowName("huggingface", model, "float32", 1, threads))
        for dtype in ("float32", "int8"):
            layouts = dict.fromkeys([(1, threads), (threads, 1)])
            rows += [RowName("ctranslate2", "dense", dtype, *layout) for layout in layouts]
    wanted = [""] if args.only is None else args.only.split(",")
    found = [row for row in rows if any(text in str(row) for text in wanted)]
    if not found:
        known = ", ".join(map(str, rows))
        raise ConfigError(f"--only must be part of a row's name ({known}), but is {args.only!r}.")
    return found


def worker_of(row: RowName) -> Row:
    """The process of a row: fairseq lives beside mtmoe, the others elsewhere."""
    if row.engine in ("mtmoe", "fairseq"):
        return Row(str(row), f"benchmarks.translate_rows:build_{row.engine}")
    python = str(TRANSLATE_PEERS / "bin" / "python")
    return Row(str(row), f"benchmarks.translate_peers:build_{row.engine}", python)


def measure(
    args: argparse.Namespace, rows: list[RowName], work: Work, folder: Path
) -> list[Result]:
    """Time all rows, say each on standard error, and keep the JSON file up to date."""

    def on_failure(name: str, error: RowError) -> None:
        say(f"{name} has no figure: {error}")

    names = {str(row): row for row in rows}
    results: list[Result] = []
    with open_workers([worker_of(row) for row in rows], args.threads) as workers:
        options = {name: options_of(row, args, folder) for name, row in names.items()}
        able = build_rows(workers, options, on_failure)
        for beam in args.beams:
            batches = choose_batches(able, beam, args.batches, work.num_tokens, on_failure)
            with _progress_bar(args.rounds) as on_round:
                calls = {name: call_name(beam, batch) for name, batch in batches.items()}
                timings = time_rows(able, calls, args.rounds, on_failure, on_round, warm_ups=0)
            for name, seconds in timings.items():
                peak = able[name].peak_bytes()
                tokens = work.num_tokens
                results.append(Result(names[name], beam, batches[name], tokens, seconds, peak))
            say_results(results, beam)
            if args.json:
                write_entries(as_dicts(results), args.json)
        warn_of_spinning(workers)
    return results


def options_of(row: RowName, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What a worker is told."""
    return {
        "model": row.model,
        "dtype": row.dtype,
        "workers": row.workers,
        "threads": row.threads,
        "beams": args.beams,
        "batches": args.batches,
        "folder": str(folder),
    }


def choose_batches(
    workers: Mapping[str, Worker],
    beam: int,
    batches: list[int],
    num_tokens: int,
    on_failure: OnFailure,
) -> dict[str, int]:
    """The batch with which each row is fastest; rows that fail or do other work are left out."""
    chosen = {}
    for name, worker in workers.items():
        try:
            _run(worker, call_name(beam, batches[0]), num_tokens)  # a warm-up
            seconds = {n: _run(worker, call_name(beam, n), num_tokens) for n in batches}
        except RowError as error:
            on_failure(name, error)
            continue
        chosen[name] = min(batches, key=seconds.__getitem__)
        shown = ", ".join(f"{n}: {num_tokens / s:.0f}" for n, s in seconds.items())
        say(f"beam {beam}, {name}, tokens/s by batch: {shown}")
    return chosen


def _run(worker: Worker, call: str, num_tokens: int) -> float:
    reply = worker.run(call)
    if reply["value"] != num_tokens:
        raise RowError(f"it gives {reply['value']} tokens in place of {num_tokens}")
    return float(reply["seconds"])


def say_results(results: list[Result], beam: int) -> None:
    """The ratios of one beam."""
    for result in (r for r in results if r.beam == beam):
        ratio = ratio_of(result, results)
        shown = "" if ratio is None else f", ratio {ratio:.2f}"
        say(f"beam {beam}, {result.row}: {result.tokens_per_second:.0f} tokens/s{shown}")


@contextmanager
def _progress_bar(rounds: int) -> Iterator[Callable[[], object]]:
    with tqdm(total=rounds, unit=" rounds", disable=not sys.stderr.isatty()) as bar:
        yield bar.update


def describe(args: argparse.Namespace, work: Work) -> str:
    """The head of the output: machine, versions, sizes, settings."""
    sizes, lengths = args.sizes, sorted(map(len, work.ids))
    middle = lengths[len(lengths) // 2]
    lines = [
        f"translation, {sizes.layers}+{sizes.layers} layers, D {sizes.dim}, F {sizes.ffn_dim}, "
        f"vocabulary {work.num_symbols}",
        f"{len(lengths)} sentences of {lengths[0]} to {lengths[-1]} tokens (median {middle}), "
        f"{work.length} output tokens each",
        f"machine: {describe_machine()}; threads: {args.threads}",
        f"versions: {describe_versions(['torch', 've-fairseq'])}, mtmoe commit {describe_commit()}",
        f"rounds: {args.rounds}; date: {today()}",
    ]
    if args.peers:
        found = describe_versions(["torch", "transformers", "ctranslate2"], TRANSLATE_PEERS)
        lines.insert(4, f"peers: {found}")
    return "\n".join(f"- {line}" for line in lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
