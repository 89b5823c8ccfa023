"""Step 7: tables of what became of the text: by language, and by corpus and filter."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from data_prep import clean
from data_prep.command import Run, run_main
from data_prep.extract import monolingual_of, pairs_of
from data_prep.manifest import Result, Step, read_manifest, run_step, write_manifest
from data_prep.parallel import map_on_cores
from data_prep.tally import num_words
from data_prep.vocabulary import train_files
from mtmoe.files import open_atomic

NAME = "report.md"
HEAD = """# What became of the text

Examples of what each filter dropped, ten for each corpus: `report/PAIR.json`. Words are
characters in languages without spaces. English counts once for each pair.
"""


def report(run: Run) -> None:
    """Write `report.md`, and the languages into the manifest."""
    pairs = [*pairs_of(run.config), *monolingual_of(run.config)]
    files = [name for names in train_files(run).values() for name in names]
    names = [*(f"{clean.REPORT}/{pair}.json" for pair in pairs), *files]
    counts = {
        step: read_manifest(run.out)["steps"][step]["counts"] for step in ("extract", "split")
    }
    coverage = read_manifest(run.out)["steps"]["vocabulary"]["counts"]["coverage"]
    settings = {"counts": counts, "coverage": coverage}
    inputs = {name: run.out / name for name in names}
    run_step(run.out, Step("report", settings, inputs, lambda: _report(run, pairs, settings)))
    manifest = read_manifest(run.out)
    languages = sorted(run.config.languages)
    if manifest.get("languages") != languages:
        write_manifest(run.out, {"languages": languages, **manifest})


def _report(run: Run, pairs: list[str], settings: dict[str, Any]) -> Result:
    reports = {}
    for pair in pairs:
        with (run.out / clean.REPORT / f"{pair}.json").open(encoding="utf-8") as file:
            reports[pair] = json.load(file)
    languages = _language_table(run, reports, settings["coverage"])
    corpora = _corpus_table(reports)
    sources = _source_table(settings["counts"]["extract"]["by_source"])
    with open_atomic(run.out / NAME) as file:
        file.write("\n".join((HEAD, languages, corpora, sources)))
    return Result([NAME], {}, f"{len(run.config.languages)} languages: {NAME}")


def _language_table(run: Run, reports: dict[str, Any], coverage: dict[str, float]) -> str:
    sizes: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in reports.values():
        for language, size in entry["sizes"].items():
            sizes[language].update(size)
    jobs = [
        (language, [str(run.out / name) for name in names])
        for language, names in train_files(run).items()
    ]
    train = dict(map_on_cores(_train_size, jobs, "report"))
    head = (
        "language",
        "sentences",
        "words",
        "after cleaning",
        "words",
        "train",
        "words",
        "covered",
    )
    keys = ("sentences_before", "words_before", "sentences_after", "words_after")
    rows = [
        (code, *(sizes[code][key] for key in keys), *train[code], f"{coverage[code]:.3%}")
        for code in sorted(sizes)
    ]
    return f"## By language\n\n{_table(head, rows)}"


def _train_size(job: tuple[str, list[str]]) -> tuple[str, tuple[int, int]]:
    language, paths = job
    sentences = words = 0
    for path in paths:
        with open(path, encoding="utf-8", newline="\n") as file:
            for line in file:
                sentences += 1
                words += num_words(line, language)
    return language, (sentences, words)


def _corpus_table(reports: dict[str, Any]) -> str:
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in reports.values():
        for corpus, found in entry["corpora"].items():
            dropped = {name: drop["count"] for name, drop in found["dropped"].items()}
            totals[corpus].update({"read": found["read"], "kept": found["kept"], **dropped})
    names = sorted({name for total in totals.values() for name in total} - {"read", "kept"})
    head = ("corpus", "read", "kept", *names)
    rows = [(corpus, *(total[name] for name in head[1:])) for corpus, total in totals.items()]
    return f"## Cleaning, by corpus and filter\n\n{_table(head, sorted(rows))}"


def _source_table(by_source: dict[str, dict[str, dict[str, int]]]) -> str:
    totals: dict[str, Counter[str]] = {}
    for source, by_pair in by_source.items():
        totals[source] = Counter()
        for count in by_pair.values():
            totals[source].update(count)
    names = sorted({name for total in totals.values() for name in total} - {"entries", "pairs"})
    head = ("source", "entries", "pairs", *names)
    rows = [(source, *(total[name] for name in head[1:])) for source, total in totals.items()]
    return f"## Reading, by source\n\n{_table(head, sorted(rows))}"


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    lines = [head, [":---", *["---:"] * (len(head) - 1)]]
    lines += [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(run_main("report", "Write tables of what became of the text.", report))
