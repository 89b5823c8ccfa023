"""Step 1: fetch the pinned wheels, and Debian's descriptions, into the cache folder."""

from __future__ import annotations

import dataclasses
import logging
import sys
from typing import Any

from data_prep.command import Run, run_main
from data_prep.manifest import Result, Step, run_step
from data_prep.sources import debian, mtdata
from data_prep.sources.apt import Index, fetch_translations, read_index
from data_prep.sources.mtdata import fetch_mtdata
from data_prep.sources.wheels import Package, chosen_packages, fetch_wheels
from mtmoe.errors import DataError

logger = logging.getLogger(__name__)


def fetch(run: Run) -> None:
    """Bring what the settings ask for into the cache, and note licences and checksums."""
    packages = chosen_packages(run.config.gettext) if run.config.gettext else []
    fetched = fetch_wheels(packages, run.cache)
    settings: dict[str, dict[str, Any]] = {"packages": {p.name: _describe(p) for p in packages}}
    counts = {"packages": len(packages)}
    summary = f"{len(packages)} wheels in the cache, {fetched} of them new"
    if run.config.debian:
        settings[debian.NAME] = _fetch_debian(run)
        counts[debian.NAME] = sum(map(bool, settings[debian.NAME].values()))
        summary += f"; Debian's descriptions in {counts[debian.NAME]} languages"
    for corpus in run.config.corpora:
        if corpus.format == mtdata.NAME:
            settings.setdefault(mtdata.NAME, {})[corpus.path] = fetch_mtdata(corpus, run.cache)
    run_step(run.out, Step("fetch", settings, {}, lambda: Result([], counts, summary)))


def _fetch_debian(run: Run) -> Index:
    """Bring Debian's descriptions into the cache; names and checksums by language."""
    assert run.config.debian
    codes = [debian.debian_code(language) for language in run.config.languages]
    folder = debian.debian_folder(run.cache)
    try:
        fetch_translations(codes, folder)
    except DataError as error:
        if run.config.debian.required:
            raise
        logger.warning("warning: going on without Debian's descriptions: %s", error)
    index = read_index(folder)
    return {code: index[code] for code in codes if code in index}


def _describe(package: Package) -> dict[str, object]:
    kept = ("version", "wheel", "sha256", "licence", "permissive")
    values = dataclasses.asdict(package)
    return {name: values[name] for name in kept}


if __name__ == "__main__":
    sys.exit(
        run_main("fetch", "Fetch wheels and Debian's descriptions into the cache folder.", fetch)
    )
