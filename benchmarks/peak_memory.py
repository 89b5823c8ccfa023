"""Run a command; tell the most memory that it and all its processes held at once, and their time.

python -m benchmarks.peak_memory [--seconds 0.5] -- COMMAND...

Memory is the proportional set size (a page that n processes share counts 1/n in each), summed over
the processes and sampled; Linux only. The command's output goes where it goes; the result is one
line of JSON on standard error's last line. The exit code is the command's.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

from benchmarks.process_tree import pss_bytes, tree_of
from mtmoe.cli.main import Parser


def watch(command: list[str], seconds: float) -> dict[str, float]:
    """Run `command`; exit code, peak of memory in bytes, seconds by the clock and of the CPU."""
    start, peak = time.monotonic(), 0
    process = subprocess.Popen(command)
    while True:
        peak = max(peak, sum(map(pss_bytes, tree_of(process.pid))))
        try:
            code = process.wait(seconds)
            break
        except subprocess.TimeoutExpired:
            continue
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "exit_code": code,
        "peak_bytes": peak,
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
    }


def main() -> int:
    """Run the command of the command line."""
    parser = Parser(prog="python -m benchmarks.peak_memory", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="between samples")
    parser.add_argument("command", nargs="+", help="after --")
    options = parser.parse_args()
    result = watch(options.command, options.seconds)
    sys.stderr.write(json.dumps(result) + "\n")
    return int(result["exit_code"]) % 256


if __name__ == "__main__":
    sys.exit(main())
