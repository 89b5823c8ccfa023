"""What benchmarks tell on standard error while they run."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tqdm import tqdm

from benchmarks.round_robin import Worker, idle_load

MAX_IDLE_LOAD = 0.05  # of a core; more disturbs the others


def say(line: str) -> None:
    """A line on standard error, above the progress bar if there is one."""
    tqdm.write(line, file=sys.stderr)


def warn_of_spinning(workers: Mapping[str, Worker]) -> None:
    """Say what the workers used while they waited; too much spoils the others' times."""
    loads = idle_load(workers)
    shown = ", ".join(f"{name} {100 * load:.1f} %" for name, load in loads.items())
    say(f"used of a core while waiting: {shown}")
    for name, load in loads.items():
        if load > MAX_IDLE_LOAD:
            say(f"WARNING: {name} kept a core {100 * load:.0f} % busy while others were timed.")
