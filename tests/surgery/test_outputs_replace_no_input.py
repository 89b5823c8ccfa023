"""No output of surgery takes the place of a file that is read."""

from __future__ import annotations

import pytest

from mtmoe.cli.main import main
from tests.inference.tiny_model import write_tiny_checkpoint

STATS = "expert-stats a/checkpoint_tiny.pt --text valid.en-de.en --output "
PRUNE = "prune a/checkpoint_tiny.pt --keep 2 "
CONVERT = "convert other-shared.pt --dict valid.en-de.en --spm valid.en-de.de --languages a,b "
COMMANDS = [
    f"{STATS} a/checkpoint_tiny.pt",
    f"{STATS} valid.en-de.en",
    f"{STATS} link",
    f"{STATS} valid.en-de.de --decoding reference",
    f"{PRUNE} --criterion random --output a/checkpoint_tiny.pt",
    f"{PRUNE} --criterion random --output out --report a/../a/checkpoint_tiny.pt",
    f"{PRUNE} --stats s.json --output s.json",
    f"{PRUNE} --stats s.json --output out --report s.json",
    f"{PRUNE} --text valid.en-de.en --output valid.en-de.en",
    f"{PRUNE} --text valid.en-de.en --decoding reference --output out --report valid.en-de.de",
    "aggregate a/checkpoint_tiny.pt b/checkpoint_tiny.pt --output b/checkpoint_tiny.pt",
    "upcycle a/checkpoint_tiny.pt --experts 2 --output a/checkpoint_tiny.pt",
    "convert a --output a/checkpoint_tiny.pt",
    "convert a/checkpoint_tiny.pt --to gathered --output a/checkpoint_tiny.pt",
    f"{CONVERT} --output other-rank-0.pt",
    f"{CONVERT} --output valid.en-de.de",
    f"{CONVERT} --output valid.en-de.en",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_input_is_not_replaced(tmp_path, capsys, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_tiny_checkpoint(tmp_path / name)
    for name in ("valid.en-de.en", "valid.en-de.de"):
        (tmp_path / name).write_text("Save the file.\n")
    (tmp_path / "link").symlink_to("valid.en-de.en")
    for name in ("other-shared.pt", "other-rank-0.pt"):
        (tmp_path / name).write_bytes(b"")
    assert main(f"{STATS} s.json --decoding reference".split()) == 0
    before = contents(tmp_path)
    capsys.readouterr()
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert " must be another file than what is read, but is " in error
    assert error.count("\n") == 1
    assert contents(tmp_path) == before


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_statistics_are_added_to_a_file_in_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    write_tiny_checkpoint(tmp_path / "a")
    (tmp_path / "valid.en-de.en").write_text("Save the file.\n")
    assert main(f"{STATS} s.json".split()) == 0
    once = (tmp_path / "s.json").read_text()
    assert main(f"{STATS} s.json --add s.json".split()) == 0
    assert (tmp_path / "s.json").read_text() != once
