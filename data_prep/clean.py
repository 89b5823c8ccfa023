"""Step 3: drop pairs that are too long, uneven, untranslated, or in another language."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from pathlib import Path

from data_prep import extract
from data_prep.command import Run, run_main
from data_prep.config import Limits
from data_prep.filters import first_refusal, make_filters
from data_prep.manifest import Result, Step, run_step
from data_prep.normalise import strip_placeholders
from data_prep.records import Record, read_records, write_records
from mtmoe.errors import DataError

FOLDER = "cleaned"


def clean(run: Run) -> None:
    """Write `cleaned/PAIR.jsonl` for every pair."""
    names = [f"{pair}.jsonl" for pair in extract.pairs_of(run.config)]
    inputs = {f"{extract.FOLDER}/{name}": run.out / extract.FOLDER / name for name in names}
    settings = dataclasses.asdict(run.config.limits)
    del settings["max_translations"]  # the split uses it
    run_step(run.out, Step("clean", settings, inputs, lambda: _clean(run)))


def _clean(run: Run) -> Result:
    outputs, counts = [], {}
    for pair in extract.pairs_of(run.config):
        source = run.out / extract.FOLDER / f"{pair}.jsonl"
        kept, counts[pair] = clean_pair(source, pair, run.config.limits)
        if not kept:
            raise DataError(
                f"cleaning must leave text, but leaves none of {pair}. "
                f"Loosen `limits`; what dropped it: {counts[pair]}."
            )
        outputs.append(f"{FOLDER}/{pair}.jsonl")
        write_records(run.out / outputs[-1], kept)
    total, left = (sum(c[key] for c in counts.values()) for key in ("in", "out"))
    return Result(outputs, counts, f"{total:,} pairs in, {left:,} out")


def clean_pair(source: Path, pair: str, limits: Limits) -> tuple[list[Record], dict[str, int]]:
    """The records that all filters accept, and how many each filter refused."""
    first, second = pair.split("-")
    filters = make_filters((first, second), limits)
    kept: list[Record] = []
    refused = Counter({judge.name: 0 for judge in filters})
    for record in read_records(source):
        texts = (record.first, record.second)
        words = (strip_placeholders(record.first), strip_placeholders(record.second))
        reason = first_refusal(filters, texts, words)
        if reason is None:
            kept.append(record)
        else:
            refused[reason] += 1
    return kept, {"in": len(kept) + refused.total(), **refused, "out": len(kept)}


if __name__ == "__main__":
    sys.exit(run_main("clean", "Drop pairs that are no good translations.", clean))
