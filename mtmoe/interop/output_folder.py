"""Folders that appear under their name only when complete."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mtmoe.errors import ConfigError
from mtmoe.files import part_of


def check_new_folder(option: str, path: str | Path) -> None:
    """Refuse, before any work is done, a folder that could not be made at the end.

    Raises:
        ConfigError: it is there and not empty, or its parent is not there.
    """
    if not str(path):
        raise ConfigError(f"{option} must be a folder, but its name is empty. Give its path.")
    target = Path(path)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(
            f"{option} must be a new or empty folder, but {path} is there. Give another name."
        )
    if not Path(os.path.realpath(target)).parent.is_dir():
        raise ConfigError(
            f"{option} must lie in a folder that is there, but is {path}. Make the folder first."
        )


@contextlib.contextmanager
def folder_atomic(path: str | Path) -> Iterator[Path]:
    """A folder to write into, which becomes `path` at the end, or is removed after an error.

    Raises:
        OSError: the disk is full or the parent is not writable; `path` is then as before.
    """
    target = Path(os.path.realpath(path))
    work = part_of(target)
    try:
        work.mkdir()
        yield work
        os.replace(work, target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
