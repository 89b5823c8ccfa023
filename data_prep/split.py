"""Step 4: deduplicate, and divide into train, valid and test without leaks."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from data_prep import clean
from data_prep.assign import Splits, assign
from data_prep.command import Run, run_main
from data_prep.extract import pairs_of
from data_prep.manifest import Result, Step, run_step
from data_prep.records import read_records
from mtmoe.errors import DataError
from mtmoe.files import open_atomic

FOLDER = "text"
SPLITS = ("train", "valid", "test")


def text_path(split: str, pair: str, language: str) -> str:
    """Where one side of one split of a pair lies, relative to the run folder."""
    return f"{FOLDER}/{split}.{pair}.{language}"


def split(run: Run) -> None:
    """Write `text/SPLIT.PAIR.LANGUAGE` for every pair."""
    pairs = pairs_of(run.config)
    names = [f"{clean.FOLDER}/{pair}.jsonl" for pair in pairs]
    settings = dataclasses.asdict(run.config.split)
    settings |= {"seed": run.config.seed, "max_translations": run.config.limits.max_translations}
    step = Step("split", settings, {n: run.out / n for n in names}, lambda: _split(run, pairs))
    run_step(run.out, step)


def _split(run: Run, pairs: list[str]) -> Result:
    records = {pair: read_records(run.out / clean.FOLDER / f"{pair}.jsonl") for pair in pairs}
    texts = {pair: [(r.first, r.second) for r in rows] for pair, rows in records.items()}
    config = run.config
    splits = assign(texts, config.split, config.limits.max_translations, config.seed)
    _check_sizes(splits)
    outputs = _write(run.out, splits)
    train, valid, test = (sum(map(len, getattr(splits, name).values())) for name in SPLITS)
    summary = f"{train:,} pairs in train, {valid:,} in valid, {test:,} in test"
    return Result(outputs, splits.counts, summary)


def _check_sizes(splits: Splits) -> None:
    for name in SPLITS:
        for pair, rows in getattr(splits, name).items():
            if not rows:
                raise DataError(
                    f"split {name} must hold text for every pair, but {pair} has none. "
                    "Give more text, or raise split.held_out_share (lower it if train is empty)."
                )


def _write(out: Path, splits: Splits) -> list[str]:
    (out / FOLDER).mkdir(exist_ok=True)
    outputs = []
    for name in SPLITS:
        for pair, rows in getattr(splits, name).items():
            for side, language in enumerate(pair.split("-")):
                outputs.append(text_path(name, pair, language))
                with open_atomic(out / outputs[-1]) as file:
                    file.writelines(f"{row[side]}\n" for row in rows)
    return outputs


if __name__ == "__main__":
    sys.exit(run_main("split", "Deduplicate and divide into train, valid and test.", split))
