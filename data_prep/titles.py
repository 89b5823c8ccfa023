"""Divide titled texts: no title and no text of test or valid stands in train.

A document's English title decides, as an English string does in `data_prep.assign`, so that it is
in the same split in every language, and where the title itself is as a sentence.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from data_prep import clean
from data_prep.assign import HASH_RANGE, Hash, make_hash, region
from data_prep.command import Run
from data_prep.config import SplitSettings
from data_prep.normalise import copy_key
from data_prep.parallel import map_on_cores
from data_prep.records import Document, read_documents
from data_prep.text_files import PARTS, SPLITS, TITLES, Marks, titled_path
from mtmoe.files import open_atomic


class _Job(NamedTuple):
    run: Run
    pair: str
    forbidden: Marks  # in train


def split_titles(
    run: Run, pairs: list[str], forbidden: Marks
) -> tuple[list[str], dict[str, dict[str, int]]]:
    """Write `titles/SPLIT.PAIR.LANGUAGE.{text,title}` for every pair.

    Args:
        forbidden: (language, key) of the strings of test and valid, which train must not have.

    Returns:
        The files, and counts by pair. A pair may have no documents in valid or test.
    """
    if not pairs:
        return [], {}
    (run.out / TITLES).mkdir(exist_ok=True)
    jobs = [_Job(run, pair, set()) for pair in pairs]
    held_out: Marks = set().union(*map_on_cores(_held_out, jobs, "titles"))
    jobs = [
        _Job(run, pair, {m for m in forbidden | held_out if m[0] in pair.split("-")})
        for pair in pairs
    ]
    counts = dict(zip(pairs, map_on_cores(_write, jobs, "split titles"), strict=True))
    return [path for pair in pairs for path in _paths(pair).values()], counts


def _paths(pair: str) -> dict[tuple[str, str, str], str]:
    """(split, part, language) -> file, in the order of a document's fields within a split."""
    return {
        (split, part, language): titled_path(split, pair, language, part)
        for split in SPLITS
        for part in reversed(PARTS)
        for language in pair.split("-")
    }


def _marks(pair: str, document: Document) -> Marks:
    languages = pair.split("-")
    return {(code, copy_key(t)) for code, t in zip(2 * languages, document, strict=True)}


def _chosen(run: Run, pair: str) -> Iterator[tuple[Document, str]]:
    """The documents with their regions; of valid and test, about as many as `split` asks for."""
    hashed = make_hash(run.config.seed)
    settings = run.config.split
    path = run.out / clean.title_path(pair)
    regions = Counter(_region(d, settings, hashed) for d in read_documents(path))
    sizes = {"test": settings.test, "valid": settings.valid}
    for document in read_documents(path):
        name = _region(document, settings, hashed)
        if name in sizes:
            share = hashed(f"titles\t{copy_key(document.first_title)}") / HASH_RANGE
            if share >= sizes[name] / regions[name]:
                continue
        yield document, name


def _region(document: Document, settings: SplitSettings, hashed: Hash) -> str:
    return region(hashed(copy_key(document.first_title)), settings)


def _held_out(job: _Job) -> Marks:
    chosen = _chosen(job.run, job.pair)
    marks = (_marks(job.pair, document) for document, name in chosen if name != "train")
    return set().union(*marks)


def _write(job: _Job) -> dict[str, int]:
    counts: Counter[str] = Counter({name: 0 for name in (*SPLITS, "shares_key_with_held_out")})
    with contextlib.ExitStack() as stack:
        files = {
            place: stack.enter_context(open_atomic(job.run.out / path))
            for place, path in _paths(job.pair).items()
        }
        for document, name in _chosen(job.run, job.pair):
            if name == "train" and not job.forbidden.isdisjoint(_marks(job.pair, document)):
                counts["shares_key_with_held_out"] += 1
                continue
            counts[name] += 1
            places = [place for place in files if place[0] == name]
            for place, text in zip(places, document, strict=True):
                files[place].write(f"{text}\n")
    return dict(counts)
