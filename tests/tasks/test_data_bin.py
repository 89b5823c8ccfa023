"""Binarised text is whole, or named."""

from __future__ import annotations

import shutil

import pytest

from mtmoe.config import MultitaskConfig
from mtmoe.errors import DataError
from mtmoe.tasks.data_bin import choose_directions, load_side

NAME = "train.aa-bb.aa"


@pytest.fixture
def folder(toy_data, tmp_path):
    return shutil.copytree(toy_data, tmp_path / "data-bin")


def test_whole_files_are_loaded(folder):
    assert len(load_side(folder, "train", "aa-bb", "aa")) == 600


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("bin", lambda data: data[:-1], r"\.bin must have \d+ bytes, as its index says, but has"),
        ("bin", lambda data: b"", r"\.bin must have \d+ bytes, as its index says, but has 0\."),
        ("idx", lambda data: data[:-1], r"\.idx must have 7226 bytes, as its index says, but has"),
        ("idx", lambda data: data[:20], r"\.idx must be an index of fairseq's mmap format, but"),
        ("idx", lambda data: b"TNTIDX" + data[6:], r"\.idx must be an index of fairseq's mmap"),
        ("idx", lambda data: b"", r"\.idx must be an index of fairseq's mmap format, but is not"),
    ],
)
def test_what_is_cut_off_is_named(folder, kind, change, message):
    path = folder / f"{NAME}.{kind}"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=f"{NAME}{message}"):
        load_side(folder, "train", "aa-bb", "aa")


def test_what_is_missing_is_named(folder):
    (folder / f"{NAME}.bin").unlink()
    with pytest.raises(DataError, match=f"must be a file, but is not there: .*{NAME}.bin"):
        load_side(folder, "train", "aa-bb", "aa")


def test_data_without_a_pair_is_refused():
    with pytest.raises(DataError, match="data must hold the text of at least one pair, but x has"):
        choose_directions(MultitaskConfig(data="x"), [])
