from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from data_prep.config import Config, DebianSettings
from data_prep.records import Document, Record
from data_prep.sources import apt
from data_prep.sources.debian import debian_code, debian_corpora, parse
from mtmoe.errors import DataError

ROOT = Path(__file__).parents[2]
EN = """Package: zed
Description-md5: aaa
Description-en: tiny editor
 An editor that is tiny
 and quick.
 .
 It has:
  * windows that can
    be split
  - colours

Package: old
Description-md5: bbb
Description-en: only English
 Text.
"""
DE = """Package: zed
Description-md5: aaa
Description-de: winziger Editor
 Ein Editor, der winzig und
 schnell ist.
 .
 Er hat:
  * Fenster, die sich teilen lassen
  - Farben

Package: zed2
Description-md5: aaa
Description-de: winziger Editor

Package: gone
Description-md5: ccc
Description-de: nur Deutsch
"""


def fill(cache: Path) -> None:
    folder = cache / "debian"
    folder.mkdir(parents=True)
    index = {}
    for code, text in (("en", EN), ("de", DE)):
        (folder / f"x_Translation-{code}").write_text(text)
        index[code] = {f"x_Translation-{code}": "0"}
    (folder / apt.INDEX).write_text(json.dumps(index))


def test_titles_paragraphs_and_items_pair(tmp_path: Path) -> None:
    fill(tmp_path)
    config = Config(("en", "de", "fr"), debian=DebianSettings())
    corpora = debian_corpora(config, tmp_path)
    assert [corpus.pair for corpus in corpora] == ["en-de"]
    counts: Counter[str] = Counter()
    found = list(corpora[0].read(counts))
    titles = ("tiny editor", "winziger Editor")
    text = ("An editor that is tiny and quick.", "Ein Editor, der winzig und schnell ist.")
    assert [r for r in found if isinstance(r, Document)] == [Document(*titles, *text)]
    assert [r[:2] for r in found if isinstance(r, Record)] == [
        titles,
        text,
        ("It has:", "Er hat:"),
        ("windows that can be split", "Fenster, die sich teilen lassen"),
        ("colours", "Farben"),
    ]
    assert counts == {"entries": 1, "documents": 1, "pairs": 5}


def test_a_description_is_parsed() -> None:
    found = parse("title\nfirst\nline\n.\n * one\n   more\n * two\n.\n.")
    assert found.title == "title"
    assert found.paragraphs == (("first line",), ("one more", "two"))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("de", "de"), ("pt_br", "pt_BR"), ("zh_hans", "zh_CN"), ("zh_hant", "zh_TW")],
)
def test_codes_are_debians(ours: str, theirs: str) -> None:
    assert debian_code(ours) == theirs


def test_what_is_in_the_cache_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert apt.fetch_translations(["en", "de"], tmp_path / "debian") == 0
    with pytest.raises(DataError, match="apt-get must be there for the source debian, but is not"):
        apt.fetch_translations(["en", "fr"], tmp_path / "debian")
    (tmp_path / "debian/x_Translation-de").unlink()
    with pytest.raises(DataError, match="apt-get must be there"):
        apt.fetch_translations(["de"], tmp_path / "debian")


FAKE = """#!/bin/bash
for word in "$@"; do
    case $word in
        Dir::State::Lists=*) lists=${word#*=} ;;
        Acquire::Languages=*) code=${word#*=} ;;
    esac
done
echo " 00 12 main/i18n/Translation-de" >"$lists/x_InRelease"
[[ -e $TEXTS/$code ]] && cp "$TEXTS/$code" "$lists/x_main_i18n_Translation-$code"
echo "W: the mirror is tired" >&2
"""


def test_apt_get_is_asked_for_one_language_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apt-get").write_text(FAKE)
    (tmp_path / "bin/apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TEXTS", str(tmp_path))
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=r"brings none: the mirror is tired\. Check the network"):
        apt.fetch_translations(["en"], cache)
    (tmp_path / "en").write_text(EN)
    (tmp_path / "de").write_text(DE)
    assert apt.fetch_translations(["en", "de", "xx"], cache) == 3
    index = apt.read_index(cache)
    assert list(index["de"]) == ["x_main_i18n_Translation-de"]
    assert index["xx"] == {}
    assert apt.fetch_translations(["en", "de", "xx"], cache) == 0


@pytest.mark.parametrize("required", [True, False])
def test_without_apt_get_one_sentence_says_so(tmp_path: Path, required: bool) -> None:
    (tmp_path / "data.yaml").write_text(
        f"languages: [en, de]\ndebian: {{required: {str(required).lower()}}}\n"
        "files: [{pair: en-de, source: en, target: de}]\n"
    )
    for code in ("en", "de"):
        (tmp_path / code).write_text("text\n")
    done = subprocess.run(
        [sys.executable, "-m", "data_prep.fetch", "--config", str(tmp_path / "data.yaml"),
         "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")],
        env={"PATH": "", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == (2 if required else 0), done.stderr
    assert "apt-get must be there for the source debian, but is not" in done.stderr
    assert "Traceback" not in done.stderr
