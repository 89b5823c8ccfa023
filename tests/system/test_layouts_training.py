"""Stock fairseq-train under torchrun: any layout of ranks trains as one process does."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from mtmoe.checkpoint.fairseq_file import check_readable
from tests.fairseq_run import SETTINGS
from tests.toy_data import write_toy_data

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
OPTIONS = ["--cpu", "--user-dir", str(ROOT / "mtmoe"), "--max-tokens", "300", "--lr", "0.005"]
OPTIONS += ["--warmup-updates", "5", "--capacity-factor", "1.0", "--save-interval-updates", "5"]
LAYOUTS = {
    "data": (2, ["--zero", "parameters"]),
    "expert": (2, ["--expert-parallel-size", "2", "--state-location", "host"]),
    "tensor": (2, ["--tensor-parallel-size", "2"]),
    "expert and tensor": (
        4,
        ["--expert-parallel-size", "2", "--tensor-parallel-size", "2", "--deduplicate-tokens",
         "--zero", "gradients", "--checkpoint-activations", "keep_communication"],
    ),
}  # fmt: skip


def start(num_ranks, data, save_dir, *options):
    launch = [str(BIN / "torchrun"), "--nproc_per_node", str(num_ranks)] if num_ranks > 1 else []
    command = [*launch, str(BIN / "fairseq-train"), str(data), *SETTINGS, *OPTIONS, *options]
    return subprocess.Popen(
        [*command, "--save-dir", str(save_dir)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"OMP_NUM_THREADS": "1", "PATH": str(BIN), "PYTHONPATH": str(ROOT)},
    )


def train(num_ranks, data, save_dir, *options):
    process = start(num_ranks, data, save_dir, *options)
    out = process.communicate(timeout=170)[0]
    assert process.returncode == 0, out[-3000:]
    return check_readable(save_dir / "checkpoint_last.pt")


def batches_of(name):
    """How many different batches the ranks of a layout read."""
    num_ranks, options = LAYOUTS[name]
    return num_ranks // (2 if "--tensor-parallel-size" in options else 1)


def check_equal(found, expected):
    for name, tensor in expected["model"].items():
        assert_close(found["model"][name], tensor, atol=1e-5, rtol=0)
    theirs = expected["last_optimizer_state"]["state"]
    for number, state in found["last_optimizer_state"]["state"].items():
        wanted = theirs.get(number)  # of keys' biases, one process has none
        for key in ("exp_avg", "exp_avg_sq"):
            reference = torch.zeros_like(state[key]) if wanted is None else wanted[key]
            assert_close(state[key], reference, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_toy_data(tmp_path_factory.mktemp("layouts") / "data-bin")


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """One process that takes the ranks' batches as micro-batches, after 5 and after 10 updates."""
    folder = tmp_path_factory.mktemp("alone")

    @functools.cache
    def trained(count, num_updates):
        options = ["--update-freq", str(count), "--max-update", str(num_updates)]
        return train(1, data, folder / f"{count}-{num_updates}", *options)

    return trained


LONG = pytest.mark.long
NAMES = [pytest.param(n, marks=() if n == "expert and tensor" else LONG) for n in LAYOUTS]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_layout_trains_as_one_process_and_the_next_one_resumes_it(data, alone, tmp_path, name):
    num_ranks, options = LAYOUTS[name]
    count = batches_of(name)
    found = train(num_ranks, data, tmp_path / "run", *options, "--max-update", "5")
    check_equal(found, alone(count, 5))
    others = [other for other in LAYOUTS if batches_of(other) == count]
    following = others[(others.index(name) + 1) % len(others)]
    num_ranks, options = LAYOUTS[following]
    found = train(num_ranks, data, tmp_path / "run", *options, "--max-update", "10")
    check_equal(found, alone(count, 10))


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_job_and_the_last_checkpoint_resumes(data, tmp_path):
    options = [*LAYOUTS["expert"][1], "--max-update"]
    train(2, data, tmp_path / "run", *options, "5")
    process = start(2, data, tmp_path / "run", *options, "100000")
    for line in process.stdout:
        if '"num_updates": "7"' in line:
            break
    ranks = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    subprocess.run(["kill", "-9", ranks[-1]], check=True)
    process.communicate(timeout=60)
    assert process.returncode == 1
    state = train(2, data, tmp_path / "run", *options, "30")
    assert state["optimizer_history"][-1]["num_updates"] == 30


REFUSED = {
    "--expert-parallel-size=3": "must divide the number of ranks (2), but is 3 * 1",
    "--no-save-optimizer-state": "no_save_optimizer_state must be off where several ranks",
}


@pytest.mark.slow
@pytest.mark.parametrize("option", list(REFUSED))
def test_what_cannot_work_is_one_sentence(data, tmp_path, option):
    process = start(2, data, tmp_path / "run", option)
    out = process.communicate(timeout=100)[0]
    assert process.returncode
    assert REFUSED[option] in out
    assert "multitask_translation.py" not in out, "no traceback"
