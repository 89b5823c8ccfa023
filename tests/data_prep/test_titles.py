from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.clean import title_path
from data_prep.command import Run
from data_prep.config import Config, DebianSettings, SplitSettings
from data_prep.normalise import copy_key
from data_prep.records import Document, write_records
from data_prep.text_files import PARTS, SPLITS, titled_path
from data_prep.titles import split_titles

PAIRS = ["en-de", "en-fr"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """400 descriptions in two languages; every fourth text is shared by two titles."""
    for pair in PAIRS:
        code = pair[3:]
        documents = [
            Document(f"title {n}", f"{code} Titel {n}", f"text {n % 300}", f"{code} Text {n % 300}")
            for n in range(400)
        ]
        write_records(tmp_path / title_path(pair), documents)
    settings = SplitSettings(test=20, valid=10, held_out_share=0.2)
    config = Config(("en", "de", "fr"), debian=DebianSettings(), split=settings)
    return Run(config, tmp_path, tmp_path)


def lines(run: Run, split: str, pair: str, language: str, part: str) -> list[str]:
    return (run.out / titled_path(split, pair, language, part)).read_text().splitlines()


def test_no_title_and_no_text_of_test_or_valid_stands_in_train(run: Run) -> None:
    outputs, counts = split_titles(run, PAIRS, set())
    assert len(outputs) == len(set(outputs)) == 2 * 3 * 4
    assert all((run.out / name).is_file() for name in outputs)
    for language in ("en", "de", "fr"):
        keys: dict[str, set[str]] = {split: set() for split in SPLITS}
        for pair in PAIRS:
            if language in pair.split("-"):
                for split in SPLITS:
                    for part in PARTS:
                        keys[split] |= set(map(copy_key, lines(run, split, pair, language, part)))
        assert keys["test"]
        assert not keys["train"] & (keys["test"] | keys["valid"])
    for count in counts.values():
        assert 8 <= count["test"] <= 32
        assert count["shares_key_with_held_out"] > 0


def test_files_of_a_pair_are_aligned(run: Run) -> None:
    split_titles(run, PAIRS, set())
    for split in SPLITS:
        titles, texts, german, german_texts = (
            lines(run, split, "en-de", code, part)
            for code in ("en", "de")
            for part in ("title", "text")
        )
        assert len(titles) == len(texts) == len(german) == len(german_texts)
        for title, text, other, other_text in zip(titles, texts, german, german_texts, strict=True):
            assert other == f"de {title.replace('title', 'Titel')}"
            assert int(title.split()[1]) % 300 == int(text.split()[1])
            assert other_text == f"de {text.replace('text', 'Text')}"


def test_strings_of_other_test_sets_are_kept_out_of_train(run: Run) -> None:
    split_titles(run, PAIRS, set())
    text = lines(run, "train", "en-de", "de", "text")[0]
    split_titles(run, PAIRS, {("de", copy_key(text))})
    assert text not in lines(run, "train", "en-de", "de", "text")
    number = text.split()[-1]
    assert f"fr Text {number}" in lines(run, "train", "en-fr", "fr", "text")
