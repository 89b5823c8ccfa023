from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from data_prep import check
from mtmoe.errors import DataError


def write(out: Path, **texts: tuple[str, str]) -> Path:
    """Write splits of one pair; a split that is not given has one line of its own."""
    (out / "text").mkdir()
    for split in ("train", "valid", "test"):
        english, german = texts.get(split, (f"own {split}\n", f"eigen {split}\n"))
        (out / f"text/{split}.en-de.en").write_text(english)
        (out / f"text/{split}.en-de.de").write_text(german)
    return out


def run(out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["check", "--out", str(out)])
    return check.main()


def test_clean_splits_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write(tmp_path), monkeypatch) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["test_in_train"] == {"en": 0, "de": 0}
    assert (row["pair"], row["train"], row["test"]) == ("en-de", 1, 1)


@pytest.mark.parametrize("leak", ["Save!\nx\n", "%(n)s SAVE\nx\n"])
def test_a_near_copy_in_train_is_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    leak: str,
) -> None:
    write(tmp_path, train=(leak, "a\nb\n"), test=("Save\n", "Sichern\n"))
    assert run(tmp_path, monkeypatch) == 1
    assert json.loads(capsys.readouterr().out)["test_in_train"] == {"en": 1, "de": 0}


def test_a_leak_on_the_other_side_or_into_valid_is_counted(tmp_path: Path) -> None:
    write(tmp_path, valid=("x\n", "Sichern\n"), test=("Save\n", "sichern.\n"))
    rows = check.count_overlaps(check.read_keys(tmp_path))
    assert rows[0]["test_in_valid"] == {"en": 0, "de": 1}
    assert check.num_leaks(rows) == 1


def test_a_folder_without_text_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, monkeypatch) == 2
    assert "--out must hold prepared text" in capsys.readouterr().err


def test_unequal_sides_are_named(tmp_path: Path) -> None:
    write(tmp_path, test=("a\nb\n", "c\n"))
    with pytest.raises(DataError, match=r"sides of test\.en-de must have equal numbers .* 1 and 2"):
        check.read_keys(tmp_path)


def test_a_missing_side_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "text/valid.en-de.de").unlink()
    with pytest.raises(DataError, match=r"text of valid\.en-de must be a file, but is not there: "):
        check.read_keys(tmp_path)
