"""Step 2: read sentence pairs, titled texts and monolingual text out of the sources."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from data_prep.command import Run, run_main
from data_prep.config import Config, pair_name
from data_prep.corpora import check_named, corpora_of
from data_prep.manifest import Result, Step, run_step
from data_prep.parallel import map_on_cores
from data_prep.records import Record, to_json
from data_prep.sources.corpus import Corpus
from data_prep.sources.gettext import Wheel
from data_prep.sources.wheels import chosen_packages, is_cached
from mtmoe.errors import ConfigError, DataError
from mtmoe.files import open_atomic

FOLDER = "extracted"
logger = logging.getLogger(__name__)


class Part(NamedTuple):
    """What became of one pair, or of the monolingual text of one language."""

    pair: str
    num_records: int
    num_documents: int
    counts: dict[str, dict[str, int]]  # by corpus


def pairs_of(config: Config) -> list[str]:
    """The language pairs of a preparation, in a fixed order."""
    named = [entry.pair for entry in config.files]
    named += [corpus.pair for corpus in config.corpora if corpus.pair]
    pairs = {pair_name(*pair.split("-")) for pair in named}
    if config.is_english_centred:
        pairs |= {pair_name("en", language) for language in config.languages if language != "en"}
    return sorted(pairs)


def monolingual_of(config: Config) -> list[str]:
    """The languages with monolingual text, in a fixed order."""
    return sorted({corpus.language for corpus in config.corpora if corpus.language})


def titled_of(run: Run) -> list[str]:
    """The pairs with titled texts, in a fixed order."""
    names = (path.name for path in (run.out / FOLDER).glob("*.titles.jsonl"))
    return sorted(name.split(".")[0] for name in names)


def record_path(pair: str) -> str:
    """Where the records of a pair, or of a language, lie in the run folder."""
    return f"{FOLDER}/{pair}.jsonl"


def title_path(pair: str) -> str:
    """Where the titled texts of a pair lie in the run folder."""
    return f"{FOLDER}/{pair}.titles.jsonl"


def extract(run: Run) -> None:
    """Write `extracted/PAIR.jsonl`, `PAIR.titles.jsonl` and `LANGUAGE.jsonl`."""
    config = run.config
    _check_wheels(run)
    check_named(config)
    corpora = corpora_of(run)
    inputs = {label: path for corpus in corpora for label, path in corpus.inputs.items()}
    settings = {
        "languages": config.languages,
        "corpora": sorted({corpus.name: corpus.licence for corpus in corpora}.items()),
        "files": [pair_name(*entry.pair.split("-")) for entry in config.files],
        "formats": [
            [corpus.format, corpus.title, corpus.pair, corpus.language, list(corpus.columns)]
            for corpus in config.corpora
        ],
    }
    run_step(run.out, Step("extract", settings, inputs, lambda: _extract(run, corpora)))


def _extract(run: Run, corpora: list[Corpus]) -> Result:
    _check_languages(run, corpora)
    (run.out / FOLDER).mkdir(exist_ok=True)
    names = [*pairs_of(run.config), *monolingual_of(run.config)]
    parts = list(map_on_cores(_extract_pair, [(run, name) for name in names], "extract"))
    outputs = []
    for part in parts:
        if not part.num_records:
            raise DataError(
                f"text must be there for every pair, but {part.pair} has none at all. Add a source."
            )
        outputs.append(record_path(part.pair))
        outputs += [title_path(part.pair)] * bool(part.num_documents)
    _warn(run.config, parts)
    total = sum(part.num_records for part in parts)
    documents = sum(part.num_documents for part in parts)
    counts = {"pairs": total, "documents": documents, "by_source": _by_source(corpora, parts)}
    return Result(outputs, counts, f"{total:,} pairs, {documents:,} titled texts")


def _extract_pair(job: tuple[Run, str]) -> Part:
    run, pair = job
    counts: dict[str, dict[str, int]] = {}
    with contextlib.ExitStack() as stack:
        files = {
            kind: stack.enter_context(open_atomic(run.out / path))
            for kind, path in ((True, record_path(pair)), (False, title_path(pair)))
        }
        numbers = Counter({True: 0, False: 0})
        for corpus in corpora_of(run):
            if corpus.pair == pair:
                count: Counter[str] = Counter()
                for record in corpus.read(count):
                    kind = isinstance(record, Record)
                    numbers[kind] += 1
                    files[kind].write(to_json(record) + "\n")
                counts[corpus.name] = dict(sorted(count.items()))
    if not numbers[False]:
        (run.out / title_path(pair)).unlink()
    return Part(pair, numbers[True], numbers[False], counts)


def _by_source(corpora: list[Corpus], parts: list[Part]) -> dict[str, dict[str, dict[str, int]]]:
    by_source: dict[str, dict[str, dict[str, int]]] = {corpus.name: {} for corpus in corpora}
    for part in parts:
        for name, count in part.counts.items():
            by_source[name][part.pair] = count
    return by_source


FAULTS = {
    "control_characters": "lines have control characters, which count as spaces",
    "columns_differ": "rows have another number of columns than the first and are left out",
    "no_pair": "lines or units have not both sides and are left out",
    "not_utf8": "lines are not UTF-8 and are left out",
    "too_long_line": "lines are longer than a megabyte and are left out",
    "unsafe_members": "members with unsafe names are left out",
}


def _warn(config: Config, parts: Iterable[Part]) -> None:
    """Tell what is wrong with the user's own text; that of wheels and Debian is known."""
    own = {corpus.title for corpus in config.corpora}
    for part in parts:
        for name, count in part.counts.items():
            for fault in set(FAULTS) & set(count) if name in own or "files " in name else ():
                logger.warning("%s (%s): %d %s", name, part.pair, count[fault], FAULTS[fault])


def _check_wheels(run: Run) -> None:
    for package in chosen_packages(run.config.gettext) if run.config.gettext else []:
        if not is_cached(package, run.cache):
            raise DataError(
                f"wheel must lie in --cache as it was pinned, but {run.cache / package.wheel} does "
                "not. Run data_prep.fetch."
            )


def _check_languages(run: Run, corpora: list[Corpus]) -> None:
    """Refuse a language that no source has."""
    offered = {side for corpus in corpora for side in corpus.pair.split("-")} | {"en"}
    unknown = [code for code in run.config.languages if code not in offered]
    if unknown:
        for package in chosen_packages(run.config.gettext) if run.config.gettext else []:
            offered |= Wheel(run.cache / package.wheel, package).languages()
        raise ConfigError(
            f"languages must be ones that the sources have, but {unknown[0]!r} is in none of "
            f"them. Use some of: {' '.join(sorted(offered))}."
        )


if __name__ == "__main__":
    sys.exit(run_main("extract", "Read sentence pairs out of the sources.", extract))
