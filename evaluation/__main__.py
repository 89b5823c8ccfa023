"""`python -m evaluation` without a step: what there is."""

from __future__ import annotations

import sys

from mtmoe.errors import ConfigError, run_command


def main() -> None:
    """Name the steps.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        "a step must be named, but is not. Use `python -m evaluation.score` for two files, "
        "`evaluation.evaluate` for systems in all directions, or `evaluation.compare` for "
        "significance; each has --help."
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
