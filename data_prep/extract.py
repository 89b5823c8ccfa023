"""Step 2: read sentence pairs out of the sources."""

from __future__ import annotations

import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_prep.command import Run, run_main
from data_prep.config import Config, pair_name
from data_prep.manifest import Result, Step, run_step
from data_prep.records import Record, write_records
from data_prep.sources.files import check_files, extract_files
from data_prep.sources.gettext import Wheel, extract_language
from data_prep.sources.wheels import Package, chosen_packages, is_cached
from mtmoe.errors import ConfigError, DataError

FOLDER = "extracted"
logger = logging.getLogger(__name__)


def pairs_of(config: Config) -> list[str]:
    """The language pairs of a preparation, in a fixed order."""
    pairs = {pair_name(*entry.pair.split("-")) for entry in config.files}
    if config.gettext is not None:
        pairs |= {pair_name("en", language) for language in config.languages if language != "en"}
    return sorted(pairs)


def extract(run: Run) -> None:
    """Write `extracted/PAIR.jsonl` for every pair."""
    config = run.config
    packages = chosen_packages(config.gettext) if config.gettext else []
    _check_wheels(packages, run.cache)
    check_files(config.files)
    inputs = {package.wheel: run.cache / package.wheel for package in packages}
    for number, entry in enumerate(config.files, 1):
        for side in (entry.source, entry.target):
            inputs[f"files {number} {entry.pair} {Path(side).name}"] = Path(side)
    settings = {
        "languages": config.languages,
        "packages": [package.name for package in packages],
        "files": [pair_name(*entry.pair.split("-")) for entry in config.files],
    }
    run_step(run.out, Step("extract", settings, inputs, lambda: _extract(run, packages)))


def _extract(run: Run, packages: list[Package]) -> Result:
    records: dict[str, list[Record]] = defaultdict(list)
    counts: dict[str, Any] = {}
    wheels = [Wheel(run.cache / package.wheel, package) for package in packages]
    _check_languages(run.config, wheels)
    for wheel in wheels:
        for language in sorted(set(run.config.languages) - {"en"}):
            count: Counter[str] = Counter()
            records[pair_name("en", language)] += extract_language(wheel, language, count)
            counts.setdefault(wheel.package.name, {})[language] = dict(sorted(count.items()))
    for number, entry in enumerate(run.config.files, 1):
        count = Counter()
        records[pair_name(*entry.pair.split("-"))] += extract_files(entry, count)
        counts[f"files {number}"] = {entry.pair: dict(sorted(count.items()))}
        if found := count["control_characters"]:
            text = "%s and %s: %d lines have control characters, which count as spaces"
            logger.warning(text, entry.source, entry.target, found)
    return _write(run, records, counts)


def _write(run: Run, records: dict[str, list[Record]], counts: dict[str, Any]) -> Result:
    outputs = []
    for pair in pairs_of(run.config):
        if not records[pair]:
            raise DataError(
                f"text must be there for every pair, but {pair} has none at all. Add a source."
            )
        outputs.append(f"{FOLDER}/{pair}.jsonl")
        write_records(run.out / outputs[-1], records[pair])
    total = sum(map(len, records.values()))
    return Result(outputs, {"pairs": total, "by_source": counts}, f"{total:,} pairs")


def _check_wheels(packages: list[Package], cache: Path) -> None:
    for package in packages:
        if not is_cached(package, cache):
            raise DataError(
                f"wheel must lie in --cache as it was pinned, but {cache / package.wheel} does "
                "not. Run data_prep.fetch."
            )


def _check_languages(config: Config, wheels: list[Wheel]) -> None:
    """Refuse a language that no source has."""
    offered: set[str] = set().union(*(wheel.languages() for wheel in wheels))
    in_files = {side for entry in config.files for side in entry.pair.split("-")}
    unknown = [code for code in config.languages if code not in offered | in_files | {"en"}]
    if unknown:
        raise ConfigError(
            f"languages must be ones that the sources have, but {unknown[0]!r} is in none of "
            f"them. {_offer(sorted(offered | in_files))}"
        )


def _offer(codes: Iterable[str]) -> str:
    return f"Use some of: {' '.join(codes)}."


if __name__ == "__main__":
    sys.exit(run_main("extract", "Read sentence pairs out of the sources.", extract))
