from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from data_prep.config import FilePair
from data_prep.records import Record
from data_prep.sources.files import check_files, extract_files
from mtmoe.errors import DataError


def pair(folder: Path, source: bytes, target: bytes, name: str = "en-de") -> FilePair:
    (folder / "a").write_bytes(source)
    (folder / "b").write_bytes(target)
    return FilePair(name, str(folder / "a"), str(folder / "b"))


def test_lines_pair_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    entry = pair(tmp_path, b"one\n\n three \r\n", "eins\nzwei\ndréi\n".encode())
    records = list(extract_files(entry, counts))
    assert records == [Record("one", "eins", "a"), Record("three", "dréi", "a")]
    assert counts == {"entries": 3, "pairs": 2, "empty": 1}


def test_control_characters_part_words_and_are_counted(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    entry = pair(tmp_path, b"ciao\0mondo\nb\tc\nd\n", "hallo\x85welt\nb\nd\x1f\n".encode())
    records = list(extract_files(entry, counts))
    assert records[0] == Record("ciao mondo", "hallo welt", "a")
    assert counts == {"entries": 3, "pairs": 3, "control_characters": 2}


def test_files_are_checked_by_their_key(tmp_path: Path) -> None:
    entry = pair(tmp_path, b"a\n", b"b\n")
    check_files([entry])
    (tmp_path / "b").unlink()
    with pytest.raises(
        DataError, match=r"files.target of en-de must be a file, but is not there: "
    ):
        check_files([entry])
    (tmp_path / "a").unlink()
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"files.source of en-de must be a file, but is a folder: "):
        check_files([entry])


def test_english_comes_first(tmp_path: Path) -> None:
    entry = pair(tmp_path, b"eins\n", b"one\n", "de-en")
    assert list(extract_files(entry, Counter())) == [Record("one", "eins", "a")]


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (b"a\nb\n", b"a\n", "equal numbers of lines, but .*a has 2 and .*b has 1"),
        (b"a\n\xff\n", b"a\nb\n", "text must be UTF-8, but .*a line 2 has the byte 0xff"),
        (b"", b"", "parallel text must not be empty, but .*a is"),
        (b"\n\n", b"\n\n", "parallel text must not be empty, but .*a is"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, source: bytes, target: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(extract_files(pair(tmp_path, source, target), Counter()))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    entry = FilePair("en-de", str(tmp_path / "none"), str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"text must be a file, but is not there: .*none"):
        list(extract_files(entry, Counter()))
