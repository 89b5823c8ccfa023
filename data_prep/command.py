"""The command line that all steps share."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep.config import Config, GettextSettings, load_config
from data_prep.sources.wheels import default_cache
from mtmoe.cli.main import Parser
from mtmoe.errors import ConfigError, run_command
from mtmoe.files import check_folder, take_lock


class Run(NamedTuple):
    """What every step is given."""

    config: Config
    out: Path
    cache: Path


def run_main(name: str, description: str, work: Callable[[Run], object]) -> int:
    """Parse the command line, do `work`, return the exit code."""
    start_logging()
    return run_command(lambda: _work(_parser(name, description).parse_args(), work))


def _work(options: argparse.Namespace, work: Callable[[Run], object]) -> None:
    config = load_config(options.config)
    check_folder("--out", options.out)
    check_folder("--cache", options.cache)
    if options.permissive_only:
        config = _keep_permissive(config)
    with alone_in(Path(options.out)):
        work(Run(config, Path(options.out), Path(options.cache)))


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other steps out of a run folder, which is made, and removed again if it stays empty.

    Raises:
        ConfigError: one is at work there.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not take_lock(handle):
            raise ConfigError(
                "--out must be a folder that no other data_prep works in, but one works in "
                f"{folder}. Wait until it ends, or take another folder."
            )
        yield
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):  # not empty
            for path in missing:
                path.rmdir()


def _keep_permissive(config: Config) -> Config:
    if config.gettext is None:
        raise ConfigError(
            "--permissive-only must have a source gettext, but there is none. Leave it out."
        )
    gettext = GettextSettings(config.gettext.packages, permissive_only=True)
    return dataclasses.replace(config, gettext=gettext, debian=None)  # of many licences


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = Parser(prog=f"python -m data_prep.{name}", description=description)
    parser.add_argument("--config", required=True, help="YAML file of settings; see docs/data.md")
    parser.add_argument("--out", required=True, help="run folder to read from and write to")
    parser.add_argument(
        "--cache",
        default=str(default_cache()),
        help="folder of what is fetched (default: $MTMOE_CACHE, else ~/.cache/mtmoe)",
    )
    parser.add_argument(
        "--permissive-only",
        action="store_true",
        help="leave out packages under the GPL, whatever the YAML file says",
    )
    return parser


def start_logging() -> None:
    """Log progress to standard error."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("fairseq").setLevel(logging.WARNING)  # it tells what it could do with more
