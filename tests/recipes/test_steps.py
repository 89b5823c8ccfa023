"""Functions that recipes share."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
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
    assert "is cut off or damaged. It is set aside as checkpoint_last.pt.damaged" in result.stderr
    assert last.exists() == has_best
    if has_best:
        load_checkpoint(last)
        assert last.stat().st_ino != best.stat().st_ino, "fairseq writes over it in place"


def test_a_whole_checkpoint_stays(tmp_path):
    last = write_tiny_checkpoint(tmp_path).rename(tmp_path / "checkpoint_last.pt")
    before = last.read_bytes()
    assert call(tmp_path, "drop_damaged .").returncode == 0
    assert last.read_bytes() == before


def test_the_newest_whole_checkpoint_takes_the_place(tmp_path):
    whole = write_tiny_checkpoint(tmp_path)
    for age, name in enumerate(("checkpoint_1_500.pt", "checkpoint_best.pt")):
        shutil.copy(whole, tmp_path / name)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / "checkpoint_1_500.pt").write_bytes(b"the newest")
    os.utime(tmp_path / "checkpoint_1_500.pt", (2000, 2000))
    whole.unlink()
    (tmp_path / "checkpoint_last.pt").write_bytes(b"half")
    assert call(tmp_path, "drop_damaged .").returncode == 0
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == b"the newest"


def test_a_file_is_made_again_from_other_sources(tmp_path):
    assert call(tmp_path, "is_made file 'a 1'").returncode == 1
    assert call(tmp_path, "touch file; mark_made file 'a 1'; is_made file 'a 1'").returncode == 0
    assert call(tmp_path, "is_made file 'a 2'").returncode == 1


def test_checkpoints_of_other_sources_are_set_aside(tmp_path):
    def files():
        return sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.pt"))

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "sources").write_text("a\n")
    assert call(tmp_path, "set_aside run b").stderr == "", "there is nothing to keep"
    for number, sources in enumerate(("a", "b"), 1):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / f"checkpoint_{number}.pt").touch()
        (tmp_path / "run" / "sources").write_text(f"{sources}\n")
        assert call(tmp_path, f"set_aside run {sources}").stderr == ""
        found = call(tmp_path, f"set_aside run other-than-{sources}")
        assert f"It is set aside as run.old-{number}." in found.stderr
    assert files() == ["run.old-1/checkpoint_1.pt", "run.old-2/checkpoint_2.pt"]


def test_text_is_known_by_what_training_reads(tmp_path):
    def checksum(outputs, other):
        steps = {"binarise": {"outputs": outputs}, "fetch": {"settings": other}}
        (tmp_path / "manifest.json").write_text(json.dumps({"steps": steps}))
        return call(tmp_path, "text_checksum .").stdout

    assert checksum({"train.bin": "1"}, "x") == checksum({"train.bin": "1"}, "y")
    assert checksum({"train.bin": "1"}, "x") != checksum({"train.bin": "2"}, "x")


def test_a_failed_training_is_not_marked_as_done(tmp_path):
    result = call(tmp_path, "train . out 1 sources no.such=key")
    assert result.returncode == 1
    assert "error: training failed. See out/train.log." in result.stderr
    assert not (tmp_path / "out" / "trained").exists()


def test_a_training_without_a_checkpoint_is_not_marked_as_done(tmp_path):
    """As `--help` among the overrides gives it."""
    result = call(tmp_path, "fairseq-hydra-train() { :; }; train . out 1 sources")
    assert result.returncode == 1
    assert "error: training left no checkpoint. See out/train.log." in result.stderr
    assert not (tmp_path / "out" / "trained").exists()


def test_a_finished_training_is_skipped_until_something_changes(tmp_path):
    fake = "fairseq-hydra-train() { touch out/checkpoint_best.pt; echo run >>runs; }; "
    for command, runs in (
        ("train . out 1 a", 1), ("train . out 1 a", 1), ("train . out 2 a", 2),
        ("train . out 2 b", 3), ("train . out 2 b x=1", 4),
    ):  # fmt: skip
        assert call(tmp_path, fake + command).returncode == 0
        assert (tmp_path / "runs").read_text().count("run") == runs
    assert (tmp_path / "out.old-1" / "checkpoint_best.pt").exists()


def test_an_interrupted_recipe_says_how_it_goes_on(tmp_path):
    script = f". '{ROOT}/recipes/steps.sh'; trap interrupted INT; echo begun; sleep 60 | cat"
    process = subprocess.Popen(
        ["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    process.stdout.readline()
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert error == (
        "interrupted. The same command goes on from here; a training from its last checkpoint.\n"
    )


def test_the_command_that_is_shown_translates(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    model = write_tiny_checkpoint(folder, ("it", "pl"), ("it-pl", "pl-it"))
    shown = call(tmp_path, f"show_translate '{Path(sys.executable).parent}/mtmoe' '{model}'")
    assert shown.returncode == 0, shown.stderr
    assert "--source-lang it --target-lang pl < your.txt" in shown.stdout
    (tmp_path / "your.txt").write_text("Ciao\n")
    done = call(tmp_path, shown.stdout.strip())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
