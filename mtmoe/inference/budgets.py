"""What translating may take of the machine; without torch, so that a wrong one is told at once."""

from __future__ import annotations

import logging
import math
import os

from mtmoe.errors import ConfigError

MOST_THREADS = 4  # of a core

log = logging.getLogger(__name__)


def check_threads(name: str, threads: int | None) -> None:
    """Refuse a number of threads below 1.

    Args:
        name: of the option or argument; begins the sentence.

    Raises:
        ConfigError: it is.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"{name} must be at least 1, but is {threads}. Give 1 or more.")


def limit_threads(threads: int) -> int:
    """At most `MOST_THREADS` for each core, with a warning: more would only take memory."""
    most = MOST_THREADS * (os.cpu_count() or 1)
    if threads > most:
        log.warning("threads are %d, not %d: more are of no use on this machine.", most, threads)
    return min(threads, most)


def check_expert_memory(name: str, gib: float | None) -> None:
    """Refuse a budget that is no number or negative.

    Raises:
        ConfigError: it is.
    """
    if gib is not None and not (math.isfinite(gib) and gib >= 0):
        raise ConfigError(f"{name} must be 0 or above, but is {gib}. Give GiB.")
