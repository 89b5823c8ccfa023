"""A rank that dies, stalls or goes wrong ends the job with the cause; the next run resumes."""

from __future__ import annotations

import contextlib
import random
import time

import pytest

from mtmoe.checkpoint.fairseq_file import load_checkpoint
from tests.torchrun import ROOT, check_equal, kill_rank, start, train, wait_for_update
from tests.toy_data import write_toy_data

MINUTE = 60
EXPERT = ["--expert-parallel-size", "2", "--disable-validation", "--save-interval-updates", "2"]
EXPERT += ["--keep-interval-updates", "2"]
LARGE = ["--ffn-dim", "8192"]  # a save takes long enough to be met
SHARDED = ["--checkpoint-format", "sharded"]
END = 30


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_toy_data(tmp_path_factory.mktemp("failures") / "data-bin")


def end_of(process):
    """What a job that must end within a minute has said."""
    out = process.communicate(timeout=MINUTE)[0]
    assert process.returncode not in (0, None)
    return out


def open_saves(save_dir):
    """What is being written, or was when its process was killed."""
    with contextlib.suppress(FileNotFoundError):  # a save has ended meanwhile
        files = {(path, path.stat().st_mtime_ns) for path in save_dir.glob("*.pt.tmp")}
        return files | set(save_dir.glob("shards/.*.part"))
    return set()


def meet_save(process, save_dir, left):
    """Wait until a save has begun and is not over; `left` are those of earlier kills."""
    while process.poll() is None:
        if open_saves(save_dir) - left:
            return
        time.sleep(0.0005)
    raise AssertionError(process.communicate()[0][-3000:])


def kill_in_update(process, save_dir, number, left):
    for line in process.stdout:
        if "num_updates" in line:
            break
    time.sleep(random.Random(number).uniform(0, 0.3))
    kill_rank(process, number % 2)


def kill_in_save(process, save_dir, number, left):
    meet_save(process, save_dir, left)
    time.sleep(random.Random(number).uniform(0, 0.02))
    kill_rank(process, number % 2)


def kill_often(data, save_dir, options, kill, times):
    """Resume and kill `times` times, then train to the end; the last checkpoint."""
    options = [*EXPERT, *LARGE, *options, "--max-update"]
    train(2, data, save_dir, *options, "3")
    for number in range(times):
        left = open_saves(save_dir)
        process = start(2, data, save_dir, *options, "100000")
        try:
            kill(process, save_dir, number, left)
            assert "Signal 9" in end_of(process)
        finally:
            process.terminate()  # torchrun ends its ranks; nothing where it has ended
    return train(2, data, save_dir, *options, str(END))


KILLS = {"in mid-update": kill_in_update, "in mid-save": kill_in_save}


@pytest.mark.long
def test_a_kill_in_mid_save_leaves_a_checkpoint_that_resumes(data, tmp_path):
    state = kill_often(data, tmp_path / "run", SHARDED, kill_in_save, 1)
    assert state["optimizer_history"][-1]["num_updates"] >= END


@pytest.mark.long
@pytest.mark.parametrize("options", [[], SHARDED], ids=["gathered", "sharded"])
@pytest.mark.parametrize("kill", list(KILLS.values()), ids=list(KILLS))
def test_five_kills_change_nothing_of_what_is_learned(data, tmp_path, kill, options):
    state = kill_often(data, tmp_path / "run", options, kill, 5)
    last = str(state["optimizer_history"][-1]["num_updates"])
    check_equal(state, train(2, data, tmp_path / "alone", *EXPERT, *LARGE, "--max-update", last))


@pytest.mark.slow
def test_torchrun_restarts_a_killed_rank_by_itself(data, tmp_path):
    options = [*EXPERT, *SHARDED, "--max-update"]
    process = start(2, data, tmp_path / "run", *options, "20", launch=["--max-restarts", "1"])
    wait_for_update(process, 7)
    kill_rank(process, 1)
    out = process.communicate(timeout=2 * MINUTE)[0]
    assert process.returncode == 0, out[-3000:]
    assert "Loaded checkpoint" in out
    found = load_checkpoint(tmp_path / "run" / "checkpoint_last.pt").state
    check_equal(found, train(2, data, tmp_path / "alone", *options, "20"))


CAUSES = {
    "memory": "error: rank 1 has too little memory",
    "data": "error: train.aa-bb.aa.bin must be whole, but is cut off.",
    "stall": "error: every rank must answer within --collective-timeout, but one has not.",
    "nan": "error: gradients must be finite, but are not",
}


SLOW, LONG = pytest.mark.slow, pytest.mark.long
FAILURES = [
    pytest.param(name, marks=LONG if name in ("memory", "stall") else SLOW) for name in CAUSES
]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_rank_that_fails_ends_the_job_with_the_cause(data, tmp_path, failure):
    options = [*EXPERT, "--max-update", "100000", "--collective-timeout", "10"]
    if failure == "nan":
        options += ["--lr", "1e30"]
    else:
        options += ["--user-dir", str(ROOT / "tests/failing")]
    process = start(2, data, tmp_path / "run", *options, environment={"FAILURE": failure})
    assert CAUSES[failure] in end_of(process)
