"""What the command lines of the benchmarks have in common."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.machine import num_cores
from mtmoe.errors import ConfigError


def read_number(name: str, word: str) -> int:
    """A whole number of at least 1.

    Raises:
        ConfigError: names the option.
    """
    if not (word.isascii() and word.isdigit()) or int(word) < 1:
        option = name.replace("_", "-")
        raise ConfigError(f"--{option} must be a whole number of at least 1, but is {word!r}.")
    return int(word)


def read_numbers(name: str, words: str) -> list[int]:
    """Such numbers with commas between, each once.

    Raises:
        ConfigError: names the option.
    """
    return list(dict.fromkeys(read_number(name, word) for word in words.split(",")))


def check_threads(threads: int) -> None:
    """Refuse more threads than cores.

    Raises:
        ConfigError: there are more.
    """
    if threads > num_cores():
        raise ConfigError(
            f"--threads must be at most the cores that may be used ({num_cores()}), but is "
            f"{threads}."
        )


def check_gpu() -> None:
    """Refuse to measure a GPU where there is none.

    Raises:
        ConfigError: PyTorch finds none.
    """
    if not torch.cuda.is_available():
        raise ConfigError(
            "a GPU must be there for what is to be measured, but PyTorch finds none. Use a machine "
            "and a build of PyTorch with CUDA, or leave out --device cuda."
        )


def check_peers(environment: Path) -> None:
    """Refuse --peers without their environment.

    Raises:
        ConfigError: it is not there.
    """
    if not (environment / "installed").is_file():
        raise ConfigError(
            f"--peers must find other libraries in {environment}, but they are not installed "
            "there. Run first: bash benchmarks/peers.sh."
        )
