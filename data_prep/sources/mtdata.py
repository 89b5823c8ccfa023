"""Corpora of the catalogue that the program `mtdata` knows (Gowda et al. 2021), by their ids.

`mtdata list -l deu-eng` names them: GROUP-NAME-VERSION-LANG-LANG. mtdata fetches and unpacks; what
it gives is kept in the cache, two files of lines.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_prep.config import pair_name
from data_prep.corpus_settings import CorpusSettings
from data_prep.languages import three_letters
from data_prep.records import Record
from data_prep.sources.corpus import Corpus
from data_prep.sources.files import align
from data_prep.sources.streams import open_lines
from mtmoe.errors import ConfigError, DataError
from mtmoe.files import sha256

logger = logging.getLogger(__name__)
NAME = "mtdata"
ID = re.compile(r"[A-Za-z0-9_.]+(?:-[A-Za-z0-9_.]+){2}-(?P<first>\w{2,}?)-(?P<second>\w{2,}?)")


def mtdata_files(settings: CorpusSettings, cache: Path) -> tuple[Path, Path]:
    """Where the sides lie in the cache, in the order of `pair_name`.

    Raises:
        ConfigError: the id is of another form, or of other languages than the pair.
    """
    found = ID.fullmatch(settings.path)
    if not found:
        raise ConfigError(
            "corpora.path of mtdata must be an id such as Statmt-europarl-10-deu-eng, but is "
            f"{settings.path!r}. See `mtdata list`."
        )
    offered = {code[:3]: code for code in found.groups()}
    wanted = [three_letters(side) for side in pair_name(*settings.pair.split("-")).split("-")]
    if set(wanted) != set(offered):
        raise ConfigError(
            f"corpora.pair must be of the languages of {settings.path}, but is {settings.pair}."
        )
    first, second = (cache / NAME / f"{settings.path}.{offered[code or '']}" for code in wanted)
    return first, second


def mtdata_corpus(settings: CorpusSettings, cache: Path) -> Corpus:
    """The corpus of an id that was fetched.

    Raises:
        DataError: it was not.
    """
    files = mtdata_files(settings, cache)
    for path in files:
        if not path.is_file():
            raise DataError(f"{path} must have been fetched, but is not. Run data_prep.fetch.")
    inputs = {f"{NAME}/{path.name}": path for path in files}
    pair = pair_name(*settings.pair.split("-"))
    read = functools.partial(_read, settings.title, files)
    return Corpus(settings.title, pair, settings.licence, inputs, read)


def _read(title: str, files: tuple[Path, Path], counts: Counter[str]) -> Iterator[Record]:
    with open_lines(files[0]) as first, open_lines(files[1]) as second:
        yield from align(first, second, title, counts)


def fetch_mtdata(settings: CorpusSettings, cache: Path) -> dict[str, str]:
    """Let mtdata bring a corpus into the cache, if it is not there; its checksums by file.

    Raises:
        ConfigError: the id or the pair is wrong, or mtdata is not installed.
        DataError: mtdata fails.
    """
    files = mtdata_files(settings, cache)
    if not all(path.is_file() for path in files):
        program = shutil.which("mtdata")
        if program is None:
            raise ConfigError(
                f"the program mtdata must be installed to fetch {settings.path}, but is not. "
                "Use `pip install mtdata`."
            )
        (cache / NAME).mkdir(parents=True, exist_ok=True)
        logger.info("fetching %s by mtdata", settings.path)
        with tempfile.TemporaryDirectory(dir=cache / NAME, prefix=".fetch.") as folder:
            _get(program, settings.path, Path(folder))
            for path in files:
                os.replace(_part(Path(folder), path.suffix), path)
    return {path.name: sha256(path) for path in files}


def _get(program: str, name: str, folder: Path) -> None:
    languages = "-".join(name.split("-")[-2:])
    command = [program, "get", "-l", languages, "-tr", name, "-o", str(folder), "--no-merge"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"mtdata must fetch {name}, but failed: {last[:300].rstrip('.')}.")


def _part(folder: Path, suffix: str) -> Path:
    """The one file that mtdata wrote for a language."""
    found = [p for p in folder.rglob("*") if p.suffix == suffix and p.is_file()]
    if len(found) != 1:
        raise DataError(
            f"mtdata must give one file that ends in {suffix}, but gives {len(found)}. "
            "Give the corpus as files (format moses)."
        )
    return found[0]
