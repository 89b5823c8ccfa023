"""`python -m data_prep` without a step: what the steps are."""

from __future__ import annotations

import sys

import data_prep
from mtmoe.errors import ConfigError, run_command


def main() -> None:
    """Name the steps.

    Raises:
        ConfigError: always.
    """
    steps = " ".join((data_prep.__doc__ or "").split("\n\n")[1].split())
    raise ConfigError(f"a step must be named, but is not. Use `python -m data_prep.STEP`. {steps}")


if __name__ == "__main__":
    sys.exit(run_command(main))
