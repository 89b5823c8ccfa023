"""What translating may take of the machine; without torch, so that a wrong one is told at once."""

from __future__ import annotations

import math

from mtmoe.errors import ConfigError


def check_threads(name: str, threads: int | None) -> None:
    """Refuse a number of threads below 1.

    Args:
        name: of the option or argument; begins the sentence.

    Raises:
        ConfigError: it is.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"{name} must be at least 1, but is {threads}. Give 1 or more.")


def check_expert_memory(name: str, gib: float | None) -> None:
    """Refuse a budget that is no number or negative.

    Raises:
        ConfigError: it is.
    """
    if gib is not None and not (math.isfinite(gib) and gib >= 0):
        raise ConfigError(f"{name} must be 0 or above, but is {gib}. Give GiB.")
