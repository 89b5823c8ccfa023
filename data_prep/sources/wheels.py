"""Wheels pinned by version and checksum, fetched with pip into a cache folder."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from data_prep.config import GettextSettings
from mtmoe.errors import ConfigError, DataError
from mtmoe.files import sha256

logger = logging.getLogger(__name__)

PINS = Path(__file__).with_name("gettext.json")


@dataclass(frozen=True)
class Package:
    """A pinned package whose wheel holds catalogues."""

    name: str
    version: str
    wheel: str  # file name
    sha256: str
    licence: str  # SPDX expression
    permissive: bool
    accelerator: str | None = None  # the mark of keyboard accelerators, if its strings have them
    context_bar: bool = False  # msgid may be "context|text"


def pinned_packages() -> list[Package]:
    """All pinned packages, by name."""
    pins = json.loads(PINS.read_text(encoding="utf-8"))
    return [Package(name=name, **pin) for name, pin in sorted(pins.items())]


def chosen_packages(settings: GettextSettings) -> list[Package]:
    """The packages that the settings ask for.

    Raises:
        ConfigError: a name is not pinned, or nothing is left.
    """
    packages = pinned_packages()
    names = [package.name for package in packages]
    for name in settings.packages or ():
        if name not in names:
            raise ConfigError(
                f"gettext.packages must be among {', '.join(names)}, but one is {name!r}."
            )
    wanted = names if settings.packages is None else settings.packages
    chosen = [
        package
        for package in packages
        if package.name in wanted and (package.permissive or not settings.permissive_only)
    ]
    if not chosen:
        raise ConfigError(
            "gettext.packages must name at least one package that the licences allow, but none is "
            "left. Name more, or set gettext.permissive_only to false."
        )
    return chosen


def default_cache() -> Path:
    """The cache folder: $MTMOE_CACHE, else ~/.cache/mtmoe."""
    return Path(os.environ.get("MTMOE_CACHE") or Path.home() / ".cache" / "mtmoe")


def fetch_wheels(packages: list[Package], cache: Path) -> int:
    """Bring the wheels of `packages` into `cache`; those there with the right checksum stay.

    Returns:
        How many were fetched.

    Raises:
        DataError: pip fails, or a file has another checksum than its pin.
    """
    cache.mkdir(parents=True, exist_ok=True)
    missing = [package for package in packages if not is_cached(package, cache)]
    if missing:
        logger.info("fetching %s", ", ".join(package.wheel for package in missing))
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch.") as folder:
            _download(missing, Path(folder), cache / "pip.log")
            for package in missing:
                _accept(package, Path(folder) / package.wheel, cache)
    return len(missing)


def is_cached(package: Package, cache: Path) -> bool:
    """Whether the wheel lies in the cache, whole and as it was pinned."""
    path = cache / package.wheel
    return path.is_file() and sha256(path) == package.sha256


def _download(packages: list[Package], folder: Path, log: Path) -> None:
    requirements = folder / "requirements.txt"
    pins = (f"{p.name}=={p.version} --hash=sha256:{p.sha256}\n" for p in packages)
    requirements.write_text("".join(pins), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--ignore-requires-python", "--require-hashes", "--disable-pip-version-check"]
    command += ["--no-input", "-r", str(requirements), "-d", str(folder)]
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["no reason"]
        raise DataError(
            f"pip must fetch {', '.join(p.name for p in packages)}, but failed: "
            f"{errors[-1].removeprefix('ERROR: ')[:300].rstrip('.')}. "
            f"Check the network; {log} says more."
        )


def _accept(package: Package, path: Path, cache: Path) -> None:
    """Move a fetched wheel into the cache, if it is what was pinned."""
    if not path.is_file():
        raise DataError(f"pip must bring {package.wheel}, but it is not there after the fetch.")
    found = sha256(path)
    if found != package.sha256:
        raise DataError(
            f"checksum of {package.wheel} must be {package.sha256}, but is {found}. "
            "Do not use this file; report it."
        )
    os.replace(path, cache / package.wheel)
