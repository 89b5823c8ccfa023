"""Parallel text by its file names."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtmoe.errors import DataError
from mtmoe.report.parallel_text import find_pairs, read_directions


def write_pair(folder: Path, pair: str, first: str, second: str, split: str = "test") -> None:
    for language, text in zip(pair.split("-"), (first, second), strict=True):
        (folder / f"{split}.{pair}.{language}").write_bytes(text.encode())


def test_all_pairs_are_read_forward_then_backward(tmp_path: Path) -> None:
    write_pair(tmp_path, "en-pt_br", "one\ntwo\n", "um\ndois\n")
    write_pair(tmp_path, "de-es", "eins\n", "uno\n")
    write_pair(tmp_path, "en-fr", "one\n", "un\n", split="valid")
    texts = read_directions(tmp_path, "test")
    assert [text.direction for text in texts] == ["de-es", "en-pt_br", "es-de", "pt_br-en"]
    assert texts[3].source == ("um", "dois")
    assert texts[3].target == ("one", "two")
    assert read_directions(tmp_path, "test", limit=1)[1].source == ("one",)


def test_other_files_are_no_pairs(tmp_path: Path) -> None:
    write_pair(tmp_path, "en-de", "one\n", "eins\n")
    (tmp_path / "test.en-de.json").touch()
    (tmp_path / ".test.en-fr.fr.x.part").touch()
    assert find_pairs(tmp_path, "test") == [("en", "de")]


@pytest.mark.parametrize("split", ["valid", "*", ""])
def test_folder_without_the_split_is_refused(tmp_path: Path, split: str) -> None:
    write_pair(tmp_path, "en-de", "one\n", "eins\n")
    with pytest.raises(DataError, match="text folder must hold files such as"):
        read_directions(tmp_path, split)
    with pytest.raises(DataError, match="holds none"):
        read_directions(tmp_path / "missing", "test")


def test_unequal_sides_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "en-de", "one\ntwo\n", "eins\n")
    with pytest.raises(
        DataError, match=r"equally many lines, but .*test.en-de.en has 2 and .* has 1"
    ):
        read_directions(tmp_path, "test")


def test_missing_side_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test.en-de.en").write_text("one\n")
    with pytest.raises(DataError, match=r"text must be a file, but is not there: .*test.en-de.de"):
        read_directions(tmp_path, "test")


def test_empty_pair_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "en-de", "", "")
    with pytest.raises(
        DataError, match=r"must have at least one line, but .*test.en-de.en is empty"
    ):
        read_directions(tmp_path, "test")


def test_bytes_that_are_not_utf8_name_file_and_line(tmp_path: Path) -> None:
    write_pair(tmp_path, "en-de", "one\n", "eins\n")
    (tmp_path / "test.en-de.de").write_bytes(b"\xff\n")
    with pytest.raises(DataError, match=r"test.en-de.de line 1 has the byte 0xff"):
        read_directions(tmp_path, "test")
