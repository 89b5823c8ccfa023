"""Text in the vocabulary of a checkpoint."""

from __future__ import annotations

import pytest

from data_prep.encode import encode_folder
from mtmoe.data.vocabulary import EOS
from mtmoe.errors import DataError
from mtmoe.tasks.data_bin import find_pairs, load_side, load_vocabulary
from tests.inference.tiny_model import tiny_vocabulary

VOCABULARY = tiny_vocabulary(("de", "en", "fr"))
LINES = {"en": ["Save the file.", "", "Open a new window."], "de": ["Die Datei", "x", "löschen?"]}


@pytest.fixture
def text(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for language, lines in LINES.items():
        path = folder / f"train.de-en.{language}"
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return folder


def test_the_folder_is_one_that_the_task_reads(text, tmp_path):
    out = tmp_path / "deep" / "data-bin"
    counts = encode_folder(VOCABULARY, text, out)
    assert [count[:2] for count in counts] == [("train.de-en.de", 3), ("train.de-en.en", 3)]
    assert load_vocabulary(out) == VOCABULARY
    assert set(find_pairs(out, "train")) == {("de", "en"), ("en", "de")}
    for language, lines in LINES.items():
        side = load_side(out, "train", "de-en", language)
        found = [side[n].tolist() for n in range(len(lines))]
        assert found == [[*ids, EOS] for ids in VOCABULARY.encode(lines)]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train.de-en.en", b"one\n", "equally many lines"),
        ("train.de-en.en", b"a\nb\n\xff\n", "train.de-en.en line 3 has the byte 0xff"),
        ("train.de-en.en", b"a\r\nb\r\nc\r\n", "line 1 ends as on Windows"),
        ("train.en-xx.en", b"a\n", "language must be one of de, en, fr, but is 'xx'"),
        ("train.en-fr.en", b"a\n", "text must be a file, but is not there"),
        (None, None, "--text must hold files such as"),
    ],
)
def test_text_that_does_not_fit_is_refused_and_nothing_is_written(
    text, tmp_path, name, data, message
):
    if name is None:
        text = tmp_path / "empty"
        text.mkdir()
    else:
        (text / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        encode_folder(VOCABULARY, text, tmp_path / "out")
    assert not (tmp_path / "out").exists()
