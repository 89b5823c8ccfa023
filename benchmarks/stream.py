"""Memory of `mtmoe translate` while many lines stream through, and whether it can be interrupted.

python -m benchmarks.stream [--lines 100000,1000000] [--kill]

A tiny model of random weights translates made-up lines from a file into a file. Prints, for each
number of lines, seconds and the most memory that its processes held. With --kill, the largest file
is translated again and killed without warning at random moments, until it is finished by --resume;
what it wrote must be what was written without interruption, byte for byte.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.machine import num_cores
from benchmarks.options import read_number, read_numbers
from benchmarks.process_tree import pss_bytes, tree_of
from benchmarks.remarks import say
from benchmarks.translate_models import LANGUAGES, Sizes, make_vocabulary, write_model
from mtmoe.cli.main import Parser
from mtmoe.errors import MtmoeError, run_command

TINY = Sizes(layers=1, dim=16, ffn_dim=16, num_symbols=200, sentences=0, length=0)
MOST_WORDS = 8  # of a line
MAX_LENGTH = 4  # pieces of an output
MIB = 2**20
SECONDS_OF_SAMPLE = 0.2


@dataclass(frozen=True)
class Run:
    """One call of `mtmoe translate`."""

    lines: int
    seconds: float
    peak_mib: float  # of its processes together; pages that they share count once
    code: int  # 0, or what it ended with; negative: the signal


def main() -> None:
    """Measure, write each run as a line of JSON to standard output."""
    args = _parse_arguments(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="stream", dir=args.folder) as name:
        folder = Path(name)
        write_model(folder / "tiny.pt", TINY, make_vocabulary(TINY.num_symbols), moe_every=0)
        for number in args.lines:
            text = folder / f"{number}.{LANGUAGES[0]}"
            write_lines(text, number)
            run = translate(folder, text, folder / f"{number}.out", args.threads)
            if run.code != 0:
                raise MtmoeError(f"mtmoe translate must end well, but ends with {run.code}.")
            check_lines(folder / f"{number}.out", number)
            sys.stdout.write(json.dumps(asdict(run)) + "\n")
            sys.stdout.flush()
        if args.kill:
            check_resumed(folder, text, run, args)


def _parse_arguments(words: list[str]) -> argparse.Namespace:
    parser = Parser(
        "python -m benchmarks.stream",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--lines", default="100000,1000000", metavar="N,...")
    parser.add_argument("--kill", action="store_true", help="interrupt and resume, too")
    parser.add_argument("--seed", default="1", metavar="N", help="of the moments of --kill")
    parser.add_argument("--threads", default=str(num_cores()), metavar="N")
    parser.add_argument("--folder", metavar="DIR", help="for text and model; default: temporary")
    args = parser.parse_args(words)
    args.lines = sorted(read_numbers("lines", args.lines))
    args.threads, args.seed = (read_number(n, getattr(args, n)) for n in ("threads", "seed"))
    return args


def write_lines(path: Path, number: int) -> None:
    """`number` lines of made-up words, nearly all of them different."""
    draw = random.Random(number)
    words = [f"w{n}" for n in range(TINY.num_symbols - len(LANGUAGES) - 4)]
    with path.open("w", encoding="utf-8") as file:
        for _ in range(number):
            file.write(" ".join(draw.choices(words, k=draw.randint(1, MOST_WORDS))) + "\n")


def translate(
    folder: Path, text: Path, out: Path, threads: int, kill_after: float | None = None
) -> Run:
    """Run `mtmoe translate`; with `kill_after`, for so many seconds at most, and with --resume."""
    words = [
        sys.executable, "-m", "mtmoe.cli.main", "translate", "--model", str(folder / "tiny.pt"),
        "--source-lang", LANGUAGES[0], "--target-lang", LANGUAGES[1], "--beam", "1",
        "--max-length", str(MAX_LENGTH), "--threads", str(threads), "--device", "cpu",
        "--input", str(text), "--output", str(out),
    ]  # fmt: skip
    words += [] if kill_after is None else ["--resume"]
    start = time.perf_counter()
    process = subprocess.Popen(words)
    killer = threading.Timer(kill_after or 0.0, process.kill)
    if kill_after is not None:
        killer.start()
    peak = 0
    while process.returncode is None:
        peak = max(peak, sum(map(pss_bytes, tree_of(process.pid))))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_OF_SAMPLE)
    killer.cancel()
    seconds = time.perf_counter() - start
    return Run(int(text.stem), seconds, peak / MIB, process.returncode)


def check_lines(path: Path, number: int) -> None:
    """Refuse an output that has not a line for each line.

    Raises:
        MtmoeError: says how many it has.
    """
    with path.open("rb") as file:
        found = sum(block.count(b"\n") for block in iter(lambda: file.read(MIB), b""))
    if found != number:
        raise MtmoeError(f"the output must have {number} lines, but has {found}.")


def check_resumed(folder: Path, text: Path, whole: Run, args: argparse.Namespace) -> None:
    """Kill and resume until the file is done; compare.

    Raises:
        MtmoeError: the outputs differ.
    """
    draw, out, kills = random.Random(args.seed), folder / "resumed.out", 0
    while not out.exists():
        run = translate(folder, text, out, args.threads, draw.uniform(0.2, 0.6) * whole.seconds)
        if run.code == -signal.SIGKILL:
            kills += 1
            say(f"killed after {run.seconds:.1f} s")
        elif run.code != 0:
            raise MtmoeError(f"mtmoe translate must end well, but ends with {run.code}.")
    if digest(out) != digest(folder / f"{whole.lines}.out"):
        raise MtmoeError("the resumed output must be that of the uninterrupted run, but is not.")
    found = {"lines": whole.lines, "kills": kills, "same": True, "peak_mib": run.peak_mib}
    sys.stdout.write(json.dumps(found) + "\n")


def digest(path: Path) -> str:
    """The checksum of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(run_command(main))
