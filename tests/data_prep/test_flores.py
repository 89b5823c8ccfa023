from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from data_prep.command import Run
from data_prep.config import Config
from data_prep.corpora import corpora_of
from data_prep.corpus_settings import CorpusSettings
from data_prep.sources.flores import find_stem
from mtmoe.errors import DataError

STEMS = {"eng_Latn", "deu_Latn", "zho_Hans", "zho_Hant", "pes_Arab", "por_Latn", "arb_Arab"}


def write(folder: Path, part: str, **texts: str) -> None:
    (folder / part).mkdir(parents=True, exist_ok=True)
    for stem, text in texts.items():
        (folder / part / f"{stem}.{part}").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("language", "stem"),
    [
        ("de", "deu_Latn"),
        ("zh_hant", "zho_Hant"),
        ("zh", "zho_Hans"),
        ("fa", "pes_Arab"),
        ("ar", "arb_Arab"),
        ("pt_br", "por_Latn"),
        ("pt", "por_Latn"),
        ("de_at", None),
        ("fr", None),
        ("zh_latn", None),
    ],
)
def test_languages_are_found_by_the_names_of_flores(language: str, stem: str | None) -> None:
    assert find_stem(language, STEMS) == stem


def test_english_pairs_with_each_language_in_both_parts(tmp_path: Path) -> None:
    write(tmp_path, "dev", eng_Latn="One\nTwo\n", deu_Latn="Eins\nZwei\n", zho_Hant="一\n二\n")
    write(tmp_path, "devtest", eng_Latn="Three\n", deu_Latn="Drei\n")
    settings = CorpusSettings("flores", str(tmp_path), licence="CC-BY-SA-4.0")
    config = Config(("de", "en", "fr", "zh_hant"), corpora=(settings,))
    corpora = {corpus.pair: corpus for corpus in corpora_of(Run(config, tmp_path, tmp_path))}
    assert set(corpora) == {"en-de", "en-zh_hant"}
    counts: Counter[str] = Counter()
    rows = [record[:2] for record in corpora["en-de"].read(counts)]
    assert rows == [("One", "Eins"), ("Two", "Zwei"), ("Three", "Drei")]
    assert counts["pairs"] == 3
    assert [path.name for path in corpora["en-de"].inputs.values()] == [
        "eng_Latn.dev", "deu_Latn.dev", "eng_Latn.devtest", "deu_Latn.devtest",
    ]  # fmt: skip
    assert len(list(corpora["en-zh_hant"].read(counts))) == 2


def test_another_folder_is_refused(tmp_path: Path) -> None:
    settings = CorpusSettings("flores", str(tmp_path))
    run = Run(Config(("de", "en"), corpora=(settings,)), tmp_path, tmp_path)
    with pytest.raises(DataError, match=r"must be a folder with dev/eng_Latn\.dev or devtest/"):
        corpora_of(run)
