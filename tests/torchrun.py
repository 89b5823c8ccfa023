"""Stock fairseq-train on several ranks, as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from torch.testing import assert_close

from mtmoe.checkpoint.fairseq_file import load_checkpoint
from tests.fairseq_run import SETTINGS

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
OPTIONS = ["--cpu", "--user-dir", str(ROOT / "mtmoe"), "--max-tokens", "300", "--lr", "0.005"]
OPTIONS += ["--warmup-updates", "5", "--capacity-factor", "1.0"]


def start(num_ranks, data, save_dir, *options, launch=(), settings=(), environment=None):
    """A running training; its output comes from `stdout`.

    Args:
        launch: more options of torchrun; they make it start one rank, too.
        settings: programs and options before fairseq-train.
    """
    is_alone = num_ranks == 1 and not launch
    torchrun = [str(BIN / "torchrun"), "--nproc_per_node", str(num_ranks), *launch]
    command = [] if is_alone else torchrun
    command = [*command, *settings, str(BIN / "fairseq-train"), str(data), *SETTINGS, *OPTIONS]
    return subprocess.Popen(
        [*command, *map(str, options), "--save-dir", str(save_dir)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={
            "OMP_NUM_THREADS": "1", "PATH": str(BIN), "PYTHONPATH": str(ROOT), **(environment or {})
        },
    )  # fmt: skip


def train(num_ranks, data, save_dir, *options, **kwargs):
    """Train to the end; the last checkpoint."""
    process = start(num_ranks, data, save_dir, *options, **kwargs)
    out = process.communicate(timeout=170)[0]
    assert process.returncode == 0, out[-3000:]
    return load_checkpoint(save_dir / "checkpoint_last.pt").state


def wait_for_update(process, number):
    """Read a training's output up to update `number`."""
    for line in process.stdout:
        if f'"num_updates": "{number}"' in line:
            return
    raise AssertionError("the training has ended")


def kill_rank(process, number):
    """`kill -9` of the rank that torchrun started as number `number`."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[number]), signal.SIGKILL)


def check_equal(found, expected):
    """Weights and the optimizer's averages, to 1e-5."""
    for name, tensor in expected["model"].items():
        assert_close(found["model"][name], tensor, atol=1e-5, rtol=0)
    theirs = expected["last_optimizer_state"]["state"]
    for number, state in found["last_optimizer_state"]["state"].items():
        wanted = theirs.get(number)  # of keys' biases, one process has none
        for key in ("exp_avg", "exp_avg_sq"):
            reference = torch.zeros_like(state[key]) if wanted is None else wanted[key]
            assert_close(state[key], reference, atol=1e-5, rtol=0)
