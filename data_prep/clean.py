"""Step 3: drop pairs that are too long, uneven, untranslated, or in another language."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data_prep import extract
from data_prep.command import Run, run_main
from data_prep.filters import Filter, first_refusal, load_identifier, make_filters
from data_prep.manifest import Result, Step, run_step
from data_prep.normalise import strip_placeholders
from data_prep.parallel import map_on_cores
from data_prep.records import Document, Record, read_documents, read_records, write_records
from data_prep.tally import Tally
from mtmoe.errors import DataError
from mtmoe.files import open_atomic

FOLDER = "cleaned"
REPORT = "report"
TITLES = " titles"  # after the name of a corpus: its titled texts


class Part(NamedTuple):
    """What became of one pair, or of the monolingual text of one language."""

    pair: str
    outputs: list[str]
    counts: dict[str, int]


def record_path(pair: str) -> str:
    """Where the clean records of a pair, or of a language, lie in the run folder."""
    return f"{FOLDER}/{pair}.jsonl"


def title_path(pair: str) -> str:
    """Where the clean titled texts of a pair lie in the run folder."""
    return f"{FOLDER}/{pair}.titles.jsonl"


def clean(run: Run) -> None:
    """Write `cleaned/PAIR.jsonl` for every pair, and `report/PAIR.json`."""
    names = [extract.record_path(pair) for pair in _texts_of(run)]
    names += [extract.title_path(pair) for pair in extract.titled_of(run)]
    inputs = {name: run.out / name for name in names}
    settings = dataclasses.asdict(run.config.limits)
    del settings["max_translations"]  # the split uses it
    run_step(run.out, Step("clean", settings, inputs, lambda: _clean(run)))


def _texts_of(run: Run) -> list[str]:
    return [*extract.pairs_of(run.config), *extract.monolingual_of(run.config)]


def _clean(run: Run) -> Result:
    for folder in (FOLDER, REPORT):
        (run.out / folder).mkdir(exist_ok=True)
    load_identifier()  # before the processes fork, so that they share it
    parts = list(map_on_cores(_clean_pair, [(run, pair) for pair in _texts_of(run)], "clean"))
    load_identifier.cache_clear()
    counts = {part.pair: part.counts for part in parts}
    for pair, count in counts.items():
        if not count["out"]:
            raise DataError(
                f"cleaning must leave text, but leaves none of {pair}. "
                f"Loosen `limits`; what dropped it: {count}."
            )
    total, left = (sum(c[key] for c in counts.values()) for key in ("in", "out"))
    outputs = [name for part in parts for name in part.outputs]
    return Result(outputs, counts, f"{total:,} pairs in, {left:,} out")


def _clean_pair(job: tuple[Run, str]) -> Part:
    run, pair = job
    first, *rest = pair.split("-")
    languages = (first, rest[0] if rest else first)
    filters = make_filters(languages, run.config.limits)
    tally = Tally(languages, [judge.name for judge in filters])
    records = clean_records(run.out / extract.record_path(pair), filters, tally)
    outputs = [record_path(pair)]
    write_records(run.out / outputs[0], records)
    counts = tally.totals()
    if (run.out / extract.title_path(pair)).exists():
        outputs.append(title_path(pair))
        documents = clean_documents(run.out / extract.title_path(pair), filters, tally)
        write_records(run.out / outputs[-1], documents)
    outputs.append(f"{REPORT}/{pair}.json")
    with open_atomic(run.out / outputs[-1]) as file:
        json.dump(tally.report(), file, ensure_ascii=False, indent=1)
        file.write("\n")
    return Part(pair, outputs, counts)


def clean_records(source: Path, filters: list[Filter], tally: Tally) -> Iterator[Record]:
    """The records that all filters accept; `tally` is told of the others, too."""
    for record in read_records(source):
        texts = (record.first, record.second or record.first)
        reason = _judge(filters, texts)
        tally.add(record.origin, texts, reason)
        if reason is None:
            yield record


def clean_documents(source: Path, filters: list[Filter], tally: Tally) -> Iterator[Document]:
    """The titled texts whose titles and texts all filters accept."""
    for document in read_documents(source):
        titles, texts = document[:2], document[2:]
        reason = _judge(filters, titles) or _judge(filters, texts)
        tally.add(f"debian{TITLES}", texts, reason, sized=False)
        if reason is None:
            yield document


def _judge(filters: list[Filter], texts: tuple[Any, ...]) -> str | None:
    words = (strip_placeholders(texts[0]), strip_placeholders(texts[1]))
    return first_refusal(filters, (texts[0], texts[1]), words)


if __name__ == "__main__":
    sys.exit(run_main("clean", "Drop pairs that are no good translations.", clean))
