"""Step 1: fetch the pinned wheels into the cache folder."""

from __future__ import annotations

import dataclasses
import sys

from data_prep.command import Run, run_main
from data_prep.manifest import Result, Step, run_step
from data_prep.sources.wheels import Package, chosen_packages, fetch_wheels


def fetch(run: Run) -> None:
    """Bring all wheels that the settings ask for into the cache, and note their licences."""
    packages = chosen_packages(run.config.gettext) if run.config.gettext else []
    fetched = fetch_wheels(packages, run.cache)
    described = {package.name: _describe(package) for package in packages}
    counts = {"packages": len(packages)}
    summary = f"{len(packages)} wheels in the cache, {fetched} of them new"
    run_step(
        run.out, Step("fetch", {"packages": described}, {}, lambda: Result([], counts, summary))
    )


def _describe(package: Package) -> dict[str, object]:
    kept = ("version", "wheel", "sha256", "licence", "permissive")
    values = dataclasses.asdict(package)
    return {name: values[name] for name in kept}


if __name__ == "__main__":
    sys.exit(run_main("fetch", "Fetch the pinned wheels into the cache folder.", fetch))
