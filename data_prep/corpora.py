"""Which corpora a preparation has, by language pair: the one place that knows all sources."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from data_prep.command import Run
from data_prep.config import Config, pair_name
from data_prep.corpus_settings import CorpusSettings
from data_prep.records import Record
from data_prep.sources.corpus import Corpus
from data_prep.sources.debian import debian_corpora
from data_prep.sources.files import check_files, file_corpora, moses_corpus
from data_prep.sources.flores import flores_corpora
from data_prep.sources.gettext import Folder, Wheel, extract_language
from data_prep.sources.monolingual import text_corpus
from data_prep.sources.mtdata import mtdata_corpus
from data_prep.sources.tables import table_corpus
from data_prep.sources.tmx import tmx_corpus
from data_prep.sources.wheels import Package, chosen_packages
from mtmoe.errors import DataError
from mtmoe.files import check_input

MAKERS: dict[str, Callable[[CorpusSettings], Corpus]] = {
    "moses": moses_corpus,
    "tsv": table_corpus,
    "jsonl": table_corpus,
    "tmx": tmx_corpus,
    "text": text_corpus,
}


def check_named(config: Config) -> None:
    """Refuse what the settings name and is not there, before anything is fetched or made.

    Raises:
        DataError: names the key of the YAML file.
    """
    check_files(config.files)
    for corpus in config.corpora:
        if corpus.format == "gettext":
            _check_catalogues(corpus.path)
        elif corpus.format == "flores":
            flores_corpora(corpus, config.languages)
        elif corpus.format in MAKERS:
            MAKERS[corpus.format](corpus)
    for text in config.exclude:
        check_input("exclude.path", text.path)
    if config.vocabulary.model is not None:
        check_input("vocabulary.model", config.vocabulary.model)


def _check_catalogues(path: str) -> None:
    kinds = "a folder, an archive or a Debian package"
    if not Path(path).exists():
        raise DataError(
            f"corpora.path of gettext must be {kinds}, but is not there: {path}. Check the path."
        )
    if Path(path).is_file() and Path(path).suffix in (".po", ".mo"):
        raise DataError(
            f"corpora.path of gettext must be {kinds}, but is one catalogue: {path}. Name the "
            "folder above it, in which it lies as po/de.po or de/LC_MESSAGES/x.po."
        )


@functools.cache
def corpora_of(run: Run) -> list[Corpus]:
    """All corpora in a fixed order: wheels, Debian, files, `corpora` as the YAML has them.

    Raises:
        DataError: a file of the user is not there, or damaged.
    """
    config = run.config
    corpora = []
    for package in chosen_packages(config.gettext) if config.gettext else []:
        corpora += catalogue_corpora(run, run.cache / package.wheel, package, False)
    corpora += debian_corpora(config, run.cache)
    corpora += file_corpora(config.files)
    for settings in config.corpora:
        corpora += _corpora_of_user(run, settings)
    return corpora


def _corpora_of_user(run: Run, settings: CorpusSettings) -> list[Corpus]:
    if settings.format == "gettext":
        package = Package(settings.title, "", "", "", settings.licence, True)
        return catalogue_corpora(run, Path(settings.path), package, True)
    if settings.format == "flores":
        return flores_corpora(settings, run.config.languages)
    if settings.format == "mtdata":
        return [mtdata_corpus(settings, run.cache)]
    return [MAKERS[settings.format](settings)]


def catalogue_corpora(run: Run, path: Path, package: Package, of_user: bool) -> list[Corpus]:
    """One corpus for each wanted language that a wheel, archive or folder has."""
    offered = Wheel(path, package, of_user).languages()
    inputs = _catalogue_inputs(path, package, of_user)
    corpora = []
    for language in sorted(set(run.config.languages) & offered - {"en"}):
        read = functools.partial(_read_catalogues, path, package, of_user, language)
        pair = pair_name("en", language)
        corpora.append(Corpus(package.name, pair, package.licence, inputs, read))
    return corpora


def _catalogue_inputs(path: Path, package: Package, of_user: bool) -> dict[str, Path]:
    if not path.is_dir():
        return {package.wheel or package.name: path}
    wheel = Wheel(path, package, of_user)
    assert isinstance(wheel.tree, Folder)
    return {f"{package.name} {m.path}": wheel.tree.paths[m.path] for m in wheel.members}


def _read_catalogues(
    path: Path, package: Package, of_user: bool, language: str, counts: Counter[str]
) -> Iterator[Record]:
    wheel = _open_wheel(path, package, of_user)
    if wheel.tree.num_unsafe:
        counts["unsafe_members"] = wheel.tree.num_unsafe
    return extract_language(wheel, language, counts)


@functools.lru_cache(maxsize=32)
def _open_wheel(path: Path, package: Package, of_user: bool) -> Wheel:
    return Wheel(path, package, of_user)  # each process opens its own
