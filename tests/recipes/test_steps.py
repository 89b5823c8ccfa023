"""Functions that recipes share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtmoe.checkpoint.fairseq_file import load_checkpoint
from tests.inference.tiny_model import write_tiny_checkpoint

ROOT = Path(__file__).parents[2]


def call(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = f"set -euo pipefail; . '{ROOT}/recipes/steps.sh'; {command}"
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=os.environ | {"PATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("has_best", [True, False])
def test_a_checkpoint_that_a_kill_cut_off_is_set_aside(tmp_path, has_best):
    whole = write_tiny_checkpoint(tmp_path)
    last, best = tmp_path / "checkpoint_last.pt", tmp_path / "checkpoint_best.pt"
    last.write_bytes(whole.read_bytes()[:1000])
    if has_best:
        shutil.copy(whole, best)
    result = call(tmp_path, "drop_damaged .")
    assert result.returncode == 0, result.stderr
    assert "It is set aside as ./checkpoint_last.pt.damaged" in result.stderr
    assert last.exists() == has_best
    if has_best:
        load_checkpoint(last)
        assert last.stat().st_ino != best.stat().st_ino, "fairseq writes over it in place"


def test_a_whole_checkpoint_stays(tmp_path):
    last = write_tiny_checkpoint(tmp_path).rename(tmp_path / "checkpoint_last.pt")
    before = last.read_bytes()
    assert call(tmp_path, "drop_damaged .").returncode == 0
    assert last.read_bytes() == before


def test_newer_compares_files(tmp_path):
    (tmp_path / "old").touch()
    os.utime(tmp_path / "old", (1, 1))
    (tmp_path / "new").touch()
    assert call(tmp_path, "newer new old").returncode == 0
    assert call(tmp_path, "newer old new").returncode == 1
    assert call(tmp_path, "newer none old").returncode == 1


def test_a_failed_training_is_not_marked_as_done(tmp_path):
    result = call(tmp_path, "train . out 1 no.such=key")
    assert result.returncode == 1
    assert "error: training failed. See out/train.log." in result.stderr
    assert not (tmp_path / "out" / "trained").exists()
