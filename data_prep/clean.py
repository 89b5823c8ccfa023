"""Step 3: drop pairs that are too long, uneven, untranslated, or in another language."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep import extract
from data_prep.blocks import cut, read_block
from data_prep.command import Run, run_main
from data_prep.config import Limits
from data_prep.filters import Filter, Pair, find_refusals, load_identifier, make_filters
from data_prep.manifest import Result, Step, run_step
from data_prep.normalise import plain_punctuation, strip_placeholders
from data_prep.parallel import map_on_cores, num_cores
from data_prep.records import Document, parse_document, parse_record, to_json
from data_prep.tally import Tally
from mtmoe.errors import DataError
from mtmoe.files import open_atomic

FOLDER = "cleaned"
REPORT = "report"
TITLES = "debian titles"  # what the report calls titled texts


class Block(NamedTuple):
    """Whole lines of a file of records, or of titled texts."""

    path: Path
    start: int  # byte
    size: int  # bytes
    languages: Pair  # two equal ones: monolingual text
    limits: Limits
    is_titled: bool
    plain: bool  # punctuation


class Cleaned(NamedTuple):
    """What is left of a block."""

    lines: bytes
    tally: Tally


class _File(NamedTuple):
    """A file that is cleaned, block by block."""

    source: Path
    target: str  # in the run folder
    places: list[tuple[int, int]]
    is_titled: bool


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
    settings["plain_punctuation"] = run.config.plain_punctuation
    for name in ("max_translations", "drop_near_duplicates"):
        del settings[name]  # the split uses them
    run_step(run.out, Step("clean", settings, inputs, lambda: _clean(run)))


def _texts_of(run: Run) -> list[str]:
    return [*extract.pairs_of(run.config), *extract.monolingual_of(run.config)]


def _clean(run: Run) -> Result:
    for folder in (FOLDER, REPORT):
        (run.out / folder).mkdir(exist_ok=True)
    load_identifier()  # before the processes fork, so that they share it
    plain = run.config.plain_punctuation
    files = {pair: _files_of(run, pair) for pair in _texts_of(run)}
    blocks = (
        Block(file.source, *place, languages_of(pair), run.config.limits, file.is_titled, plain)
        for pair, found in files.items()
        for file in found
        for place in file.places
    )
    cleaned = map_on_cores(clean_block, blocks, "clean", num_waiting=2 * num_cores())
    outputs: list[str] = []
    counts = {}
    for pair, found in files.items():
        outputs += [*(file.target for file in found), f"{REPORT}/{pair}.json"]
        counts[pair] = _write(run, pair, found, cleaned)
    load_identifier.cache_clear()
    total, left = (sum(c[key] for c in counts.values()) for key in ("in", "out"))
    return Result(outputs, counts, f"{total:,} pairs in, {left:,} out")


def _files_of(run: Run, pair: str) -> list[_File]:
    names = [(extract.record_path(pair), record_path(pair), False)]
    if (run.out / extract.title_path(pair)).exists():
        names.append((extract.title_path(pair), title_path(pair), True))
    return [
        _File(run.out / source, target, list(cut(run.out / source)), is_titled)
        for source, target, is_titled in names
    ]


def languages_of(pair: str) -> Pair:
    """The two languages of a pair; monolingual text counts as translated into itself."""
    first, *rest = pair.split("-")
    return first, rest[0] if rest else first


def _write(run: Run, pair: str, files: list[_File], cleaned: Iterator[Cleaned]) -> dict[str, int]:
    """Write what is left of a pair, and its report; the number of rows by what became of them.

    Raises:
        DataError: nothing is left.
    """
    filters = _filters(languages_of(pair), run.config.limits)
    tally = Tally(languages_of(pair), [judge.name for judge in filters])
    counts: dict[str, int] = {}
    for file in files:
        with open_atomic(run.out / file.target, "wb") as out:
            for _ in file.places:
                part = next(cleaned)
                out.write(part.lines)
                tally.merge(part.tally)
        counts = counts or tally.totals()  # of the first file, the pairs
    if not counts["out"]:
        raise DataError(
            f"cleaning must leave text, but leaves none of {pair}. "
            f"Loosen `limits`; what dropped it: {counts}."
        )
    with open_atomic(run.out / REPORT / f"{pair}.json") as report:
        json.dump(tally.report(), report, ensure_ascii=False, indent=1)
        report.write("\n")
    return counts


@functools.lru_cache(maxsize=4)
def _filters(languages: Pair, limits: Limits) -> list[Filter]:
    return make_filters(languages, limits)


def clean_block(block: Block) -> Cleaned:
    """The lines of a block that all filters accept, and what became of the others.

    Raises:
        DataError: a line is no record.
    """
    filters = _filters(block.languages, block.limits)
    tally = Tally(block.languages, [judge.name for judge in filters])
    lines = read_block(block.path, block.start, block.size)
    clean_lines = _clean_documents if block.is_titled else _clean_records
    kept = [line + b"\n" for line in clean_lines(block, lines, tally)]
    return Cleaned(b"".join(kept), tally)


def _clean_records(block: Block, lines: list[bytes], tally: Tally) -> Iterator[bytes]:
    records = [parse_record(line, block.path) for line in lines]
    if block.plain:
        records = [
            record._replace(
                first=plain_punctuation(record.first), second=plain_punctuation(record.second)
            )
            for record in records
        ]
        lines = [to_json(record).encode() for record in records]
    texts = [(record.first, record.second or record.first) for record in records]
    reasons = _refusals(block, texts)
    for line, record, pair, reason in zip(lines, records, texts, reasons, strict=True):
        tally.add(record.origin, pair, reason)
        if reason is None:
            yield line


def _clean_documents(block: Block, lines: list[bytes], tally: Tally) -> Iterator[bytes]:
    """Titles and texts must both be accepted."""
    documents = [parse_document(line, block.path) for line in lines]
    if block.plain:
        documents = [Document(*map(plain_punctuation, document)) for document in documents]
        lines = [to_json(document).encode() for document in documents]
    texts = [(document.first_text, document.second_text) for document in documents]
    of_titles = _refusals(block, [(d.first_title, d.second_title) for d in documents])
    for line, pair, *reasons in zip(lines, texts, of_titles, _refusals(block, texts), strict=True):
        reason = reasons[0] or reasons[1]
        tally.add(TITLES, pair, reason, sized=False)
        if reason is None:
            yield line


def _refusals(block: Block, pairs: list[Pair]) -> list[str | None]:
    words = [(strip_placeholders(first), strip_placeholders(second)) for first, second in pairs]
    return find_refusals(_filters(block.languages, block.limits), pairs, words)


if __name__ == "__main__":
    sys.exit(run_main("clean", "Drop pairs that are no good translations.", clean))
