"""The Translation-XX files of the machine's Debian mirrors, fetched by apt-get into a cache folder.

apt-get works in a folder of its own, changes nothing of the system, and checks the signature of
every release and the checksum of every file. Once here, files stay: releases move on, and a
preparation must find what it was made from.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from mtmoe.errors import DataError
from mtmoe.files import open_atomic, sha256

logger = logging.getLogger(__name__)

INDEX = "index.json"
Index = dict[str, dict[str, str]]  # Debian's language code -> file name -> checksum
OPTIONS = (
    "Acquire::GzipIndexes=false",
    "Acquire::IndexTargets::deb::Packages::DefaultEnabled=false",
    "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false",
    "APT::Get::List-Cleanup=false",
)
TRANSLATION = re.compile(r"(?P<release>.+)_(?P<part>[\w-]+)_i18n_Translation-(?P<code>\w+)")
OFFERED = re.compile(r"i18n/Translation-(\w+)$", re.MULTILINE)


def fetch_translations(codes: Iterable[str], cache: Path) -> int:
    """Bring the descriptions in the languages `codes` (as Debian spells them) into `cache`.

    Languages that the mirrors do not have are noted as such.

    Returns:
        How many languages were fetched.

    Raises:
        DataError: there is no apt-get, or it brings no English descriptions.
    """
    index = read_index(cache)
    missing = [code for code in codes if code not in index]
    if not missing:
        return 0
    if not shutil.which("apt-get"):
        raise DataError(
            "apt-get must be there for the source debian, but is not. Prepare on Debian or Ubuntu, "
            "or set debian.required to false to go on without it."
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mtmoe-apt.") as folder:
        os.chmod(folder, 0o755)  # apt-get downloads as a user without rights
        index |= _fetch(missing, Path(folder), cache)
    with open_atomic(cache / INDEX) as file:
        json.dump(index, file, indent=1, sort_keys=True)
    return len(missing)


def _fetch(codes: list[str], folder: Path, cache: Path) -> Index:
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    logger.info("fetching Debian's descriptions in %d languages", len(codes))
    message = _update("en", folder)
    if not _files("en", lists):
        raise DataError(
            "apt-get must bring Debian's descriptions, but brings none"
            f"{f': {message}' if message else ''}. Check the network and /etc/apt/sources.list."
        )
    releases = (path.read_text("utf-8", "replace") for path in lists.glob("*Release"))
    offered = {code for text in releases for code in OFFERED.findall(text)}
    for code in codes:
        if code in offered - {"en"}:
            _update(code, folder)
    return {code: _keep(_files(code, lists), cache) for code in codes}


def _update(code: str, folder: Path) -> str:
    """Run apt-get for one language, which every version understands; its last complaint."""
    settings = (
        *OPTIONS,
        f"Dir::State::Lists={folder / 'lists'}",
        f"Dir::Cache={folder / 'cache'}",
        f"Acquire::Languages={code}",
    )
    command = ["apt-get", *(word for setting in settings for word in ("-o", setting)), "update"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, errors="replace"
    )
    complaints = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))]
    return complaints[-1][2:].strip().rstrip(".") if complaints else ""


def _files(code: str, lists: Path) -> list[Path]:
    return sorted(lists.glob(f"*_i18n_Translation-{code}"))


def _keep(files: list[Path], cache: Path) -> dict[str, str]:
    kept = {}
    for path in files:
        kept[path.name] = sha256(path)
        draft = cache / f".{path.name}.part"
        shutil.copyfile(path, draft)
        os.replace(draft, cache / path.name)
    return kept


def read_index(cache: Path) -> Index:
    """What lies in `cache`: names and checksums by language, of those that are there."""
    try:
        index: Index = json.loads((cache / INDEX).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise DataError(f"{cache / INDEX} must be JSON, but is not. Remove it.") from None
    return {c: names for c, names in index.items() if all((cache / n).is_file() for n in names)}
