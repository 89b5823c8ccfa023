"""mtdata needs the network; here a program of its name serves a local folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from data_prep.command import Run
from data_prep.config import Config
from data_prep.corpora import corpora_of
from data_prep.corpus_settings import CorpusSettings
from data_prep.fetch import fetch
from data_prep.manifest import read_manifest
from mtmoe.errors import ConfigError, DataError, MtmoeError

ID = "Statmt-tiny-1-deu-eng"
PROGRAM = """#!/bin/sh
echo "$@" >>"{shop}/calls"
[ "$5" = {id} ] || {{ echo "Could not find: $5" >&2; exit 1; }}
mkdir -p "$7/train-parts"
cp "{shop}"/*.deu "{shop}"/*.eng "$7/train-parts/"
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a corpus, and a program `mtdata` that copies it."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / f"{ID}.deu").write_text("Eins\nZwei\n")
    (folder / f"{ID}.eng").write_text("One\nTwo\n")
    program = folder / "mtdata"
    program.write_text(PROGRAM.format(shop=folder, id=ID))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def run_of(folder: Path, name: str = ID, pair: str = "de-en") -> Run:
    config = Config(("de", "en"), corpora=(CorpusSettings("mtdata", name, pair),))
    return Run(config, folder / "out", folder / "cache")


def test_a_corpus_is_fetched_once_by_its_id_and_read(shop: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    with pytest.raises(DataError, match=r"deu-eng.eng must have been fetched, but is not"):
        corpora_of(run)
    for _ in range(2):
        fetch(run)
    assert (shop / "calls").read_text().startswith(f"get -l deu-eng -tr {ID} -o ")
    assert (shop / "calls").read_text().count("\n") == 1
    noted = read_manifest(run.out)["steps"]["fetch"]["settings"]["mtdata"][ID]
    assert sorted(noted) == [f"{ID}.deu", f"{ID}.eng"]
    corpus = corpora_of(run)[0]
    rows = [record[:2] for record in corpus.read(Counter())]
    assert (corpus.pair, rows) == ("en-de", [("One", "Eins"), ("Two", "Zwei")])
    assert sorted(path.name for path in (run.cache / "mtdata").iterdir()) == sorted(noted)


@pytest.mark.parametrize(
    ("name", "pair", "message"),
    [
        ("europarl", "en-de", "must be an id such as Statmt-europarl-10-deu-eng, but is 'europ"),
        ("Statmt-tiny-1-fra-eng", "en-de", "corpora.pair must be of the languages of Statmt-tiny"),
        ("Statmt-none-1-deu-eng", "en-de", "mtdata must fetch .*, but failed: Could not find"),
    ],
)
def test_mistakes_are_named(shop: Path, tmp_path: Path, name: str, pair: str, message: str) -> None:
    with pytest.raises(MtmoeError, match=message):
        fetch(run_of(tmp_path, name, pair))
    assert not list((tmp_path / "cache").rglob("*.deu"))


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="the program mtdata must be installed to fetch Statmt"):
        fetch(run_of(tmp_path))
