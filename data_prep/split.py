"""Step 4: deduplicate, and divide into train, valid and test without leaks."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data_prep import clean, titles
from data_prep.assign import Row, choose, make_hash
from data_prep.command import Run, run_main
from data_prep.config import Config
from data_prep.divide import Rules, Sifted, sift, train_rows
from data_prep.extract import monolingual_of, pairs_of, titled_of
from data_prep.manifest import Result, Step, run_step
from data_prep.normalise import clean_text, copy_key
from data_prep.parallel import map_on_cores
from data_prep.sources.streams import open_lines
from data_prep.text_files import SPLITS, Marks, mono_path, text_path
from mtmoe.errors import DataError
from mtmoe.files import check_input, open_atomic


class _Job(NamedTuple):
    run: Run
    sifted: Sifted
    rows: dict[str, list[Row]]  # of valid and test
    forbidden: Marks


def rules_of(run: Run) -> Rules:
    """How the run divides its rows."""
    limits = run.config.limits
    settings = (run.config.split, limits.max_translations, run.config.seed)
    return Rules(*settings, limits.drop_near_duplicates)


def split(run: Run) -> None:
    """Write `text/SPLIT.PAIR.LANGUAGE`, `mono/SPLIT.LANGUAGE`, and titled texts to `titles/`."""
    pairs = [*pairs_of(run.config), *monolingual_of(run.config)]
    names = [clean.record_path(pair) for pair in pairs]
    names += [clean.title_path(pair) for pair in titled_of(run)]
    settings = {**dataclasses.asdict(run.config.split), "seed": run.config.seed}
    for name in ("max_translations", "drop_near_duplicates"):
        settings[name] = getattr(run.config.limits, name)
    inputs = {name: run.out / name for name in names} | excluded_files(run.config)
    step = Step("split", settings, inputs, lambda: _split(run, pairs))
    run_step(run.out, step)


def excluded_files(config: Config) -> dict[str, Path]:
    """The files of `exclude`, by their names in the manifest."""
    return {
        f"exclude {number} {text.language} {Path(text.path).name}": Path(text.path)
        for number, text in enumerate(config.exclude, 1)
    }


def read_excluded(config: Config) -> Marks:
    """(language, key) of the strings of `exclude`.

    Raises:
        DataError: a file is missing or damaged.
    """
    marks: Marks = set()
    for text in config.exclude:
        check_input("exclude.path", text.path)
        with open_lines(text.path) as lines:
            marks |= {(text.language, copy_key(clean_text(line))) for line, _ in lines if line}
    return marks


def _split(run: Run, pairs: list[str]) -> Result:
    work = Path(tempfile.mkdtemp(dir=run.out, prefix=".split."))
    try:
        excluded = read_excluded(run.config)
        jobs = [(run, pair, work, excluded) for pair in pairs]
        sifted = list(map_on_cores(_sift, jobs, "deduplicate"))
        held_out = hold_out(sifted, rules_of(run))
        forbidden = {mark for rows in held_out.values() for row in rows for mark in row.marks()}
        result = _write_all(run, sifted, held_out, forbidden)
    finally:
        shutil.rmtree(work)
    outputs, counts = titles.split_titles(run, titled_of(run), forbidden | excluded)
    train, valid, test = (sum(c[name] for c in result.counts.values()) for name in SPLITS)
    summary = f"{train:,} pairs in train, {valid:,} in valid, {test:,} in test"
    all_counts = result.counts | ({"titles": counts} if counts else {})
    return Result(result.outputs + outputs, all_counts, summary)


def _sift(job: tuple[Run, str, Path, Marks]) -> Sifted:
    run, pair, work, excluded = job
    return sift(pair, run.out / clean.record_path(pair), work, rules_of(run), excluded)


def hold_out(sifted: Iterable[Sifted], rules: Rules) -> dict[str, list[Row]]:
    """The rows of valid and test; pairs choose first, monolingual text after them."""
    hashed = make_hash(rules.seed)
    rows = [row for part in sifted for row in part.held_out]
    kinds = [[row for row in rows if ("-" in row.pair) == is_pair] for is_pair in (True, False)]
    chosen: dict[str, list[Row]] = {"valid": [], "test": []}
    forbidden: Marks = set()
    for name, size in (("test", rules.settings.test), ("valid", rules.settings.valid)):
        for kind in kinds:
            chosen[name] += choose(kind, name, size, forbidden, hashed)
        forbidden = forbidden | {mark for row in chosen[name] for mark in row.marks()}
    return chosen


def _write_all(
    run: Run, sifted: list[Sifted], held_out: dict[str, list[Row]], forbidden: Marks
) -> Result:
    jobs = []
    for part in sifted:
        rows = {name: [r for r in rows if r.pair == part.pair] for name, rows in held_out.items()}
        languages = part.pair.split("-")
        own = {mark for mark in forbidden if mark[0] in languages}
        jobs.append(_Job(run, part._replace(held_out=[]), rows, own))
    outputs: list[str] = []
    counts: dict[str, dict[str, int]] = {}
    for part, count in zip(sifted, map_on_cores(_write, jobs, "split"), strict=True):
        used = count["valid"] + count["test"]
        count["held_out_unused"] = len(part.held_out) - used
        counts[part.pair] = {**part.counts, **count}
        _check_sizes(part.pair, count)
        outputs += [name for split in SPLITS for name in paths_of(split, part.pair)]
    return Result(outputs, counts, "")


def paths_of(split: str, pair: str) -> list[str]:
    """The files of a split of a pair, or of the monolingual text of a language."""
    if "-" not in pair:
        return [mono_path(split, pair)]
    return [text_path(split, pair, language) for language in pair.split("-")]


def _write(job: _Job) -> dict[str, int]:
    """Write the splits of one pair; their sizes."""
    run, sifted, rows, forbidden = job
    counts: Counter[str] = Counter()
    train = train_rows(sifted, forbidden, run.config.seed, counts)
    for name in SPLITS:
        paths = [run.out / path for path in paths_of(name, sifted.pair)]
        counts[name] = write_rows(paths, train if name == "train" else rows[name])
    return dict(counts)


def write_rows(paths: list[Path], rows: Iterable[Row]) -> int:
    """Write side n of each row to file n; the number of rows."""
    number = 0
    with contextlib.ExitStack() as stack:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        files = [stack.enter_context(open_atomic(path)) for path in paths]
        for row in rows:
            number += 1
            for file, text in zip(files, row.texts, strict=False):
                file.write(f"{text}\n")
    return number


def _check_sizes(pair: str, counts: dict[str, int]) -> None:
    for name in SPLITS:
        if not counts[name]:
            raise DataError(
                f"split {name} must hold text for every pair, but {pair} has none. "
                "Give more text, lower split.test, or raise split.held_out_share (lower it if "
                "train is empty)."
            )


if __name__ == "__main__":
    sys.exit(run_main("split", "Deduplicate and divide into train, valid and test.", split))
