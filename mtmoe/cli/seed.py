"""The option --seed."""

from __future__ import annotations

from mtmoe.errors import ConfigError
from mtmoe.inference.search_config import MAX_SEED


def read_seed(text: str) -> int:
    """A number that every random generator takes.

    Raises:
        ConfigError: it is none.
    """
    if not text.isdecimal() or len(text) > len(str(MAX_SEED)) or int(text) >= MAX_SEED:
        raise ConfigError(f"--seed must be between 0 and 2 ** 63 - 1, but is {text[:80]}.")
    return int(text)
