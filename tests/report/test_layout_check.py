"""`mtmoe doctor`: a layout that agrees with one process, and a build that does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtmoe.cli.main import main
from mtmoe.config import AdamConfig, MeshConfig, RouterConfig, TransformerConfig, Zero
from mtmoe.parallel.mesh import make_mesh
from mtmoe.report.layout_check import examine, scale_down
from tests.ranks import run_ranks
from tests.report.broken_doctor import break_expert_gradients

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


def look(layout):
    mesh = make_mesh(layout)
    config = scale_down(
        TransformerConfig(
            encoder_layers=1, decoder_layers=1, moe_every=1, shared_ffn_dim=64,
            router=RouterConfig(num_experts=64, top_k=2, capacity_factor=1.0),
        ),
        layout,
    )  # fmt: skip
    return examine(config, AdamConfig(), mesh, layout.zero, 2)


def check_good():
    worst, traffic = look(MeshConfig(2, 2, deduplicate_tokens=True))
    assert set(worst) == {"loss", "gradient norm", "parameters", "step after save and reload"}
    assert max(worst.values()) < 1e-12
    assert traffic.calls["all_to_all"] == 2 * 4
    # gradients of experts and of all others; of the norm; of the loss
    assert traffic.calls["engine all_reduce"] == 3
    assert traffic.sent_bytes["engine all_reduce"] > 0


def check_good_with_zero():
    worst, traffic = look(MeshConfig(2, 1, Zero.parameters))
    assert max(worst.values()) < 1e-12
    assert traffic.calls["engine all_gather"] > traffic.calls["engine reduce_scatter"] > 0


def check_broken():
    break_expert_gradients()
    worst, _ = look(MeshConfig(2, 1, Zero.none))
    assert worst["gradient norm"] > 1e-3  # Adam's step hardly knows the scale of a gradient


def test_a_good_build_agrees():
    run_ranks(check_good, 4)
    run_ranks(check_good_with_zero, 4)


def test_a_build_that_scales_experts_gradients_does_not_agree():
    run_ranks(check_broken, 2)


def test_the_model_is_scaled_down_but_keeps_its_kind():
    config = TransformerConfig(
        encoder_layers=24, moe_every=3, embed_dim=1024, router=RouterConfig(num_experts=64, top_k=3)
    )
    small = scale_down(config, MeshConfig(2, 2))
    assert (small.encoder_layers, small.moe_every, small.attention_heads) == (6, 3, 4)
    assert (small.router.num_experts, small.router.top_k, small.dropout) == (4, 3, 0.0)
    assert scale_down(small, MeshConfig(2, 2)) == small


def doctor(num_ranks, *options, program=BIN / "mtmoe"):
    launch = [str(BIN / "torchrun"), "--nproc_per_node", str(num_ranks), str(program)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*launch, "doctor", "--cpu", *options],
        capture_output=True, text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip


TRAINING = [  # a user's whole command line
    "data-bin", "--user-dir", "mtmoe", "--task", "multitask_translation", "--bf16",
    "--arch", "moe_transformer_tiny", "--num-experts", "16", "--top-k", "2", "--dropout", "0.1",
    "--criterion", "moe_cross_entropy", "--label-smoothing", "0.1", "--optimizer", "fused_adam",
    "--adam-betas", "(0.9, 0.98)", "--lr", "0.002", "--lr-scheduler", "inverse_sqrt",
    "--warmup-updates", "300", "--clip-norm", "1.0", "--max-tokens", "4096", "--update-freq", "4",
    "--save-dir", "checkpoints", "--seed", "7", "--no-progress-bar", "--state-location", "host",
]  # fmt: skip


@pytest.mark.slow
def test_the_command_says_its_verdict_on_a_users_training():
    options = ["--expert-parallel-size", "2", "--zero", "parameters"]
    done = doctor(2, *TRAINING, *options, "--checkpoint-activations", "keep_communication")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("data 1 x expert 2 x tensor 1 agrees with one process: largest ")
    # moe_transformer_tiny has experts on every layer: 2 + 2 of them after scaling down
    assert any(line.startswith("all_to_all: 16 calls, ") for line in lines)
    assert any(line.startswith("engine all_gather: ") for line in lines)
    told = "not examined, as it is none of doctor's: --user-dir, --task, --bf16, "
    assert done.stderr.count(told) == 1


@pytest.mark.slow
def test_the_command_says_that_a_broken_build_does_not_agree():
    options = ["--expert-parallel-size", "2", "--updates", "1"]
    done = doctor(2, *options, program=ROOT / "tests" / "report" / "broken_doctor.py")
    assert done.returncode == 1
    verdict = done.stdout.splitlines()[-1]
    assert verdict.startswith("data 1 x expert 2 x tensor 1 does not agree with one process: ")
    assert verdict.endswith("1e-09 allowed.")


@pytest.mark.long
def test_a_layout_that_does_not_fit_is_one_sentence():
    done = doctor(2, "--tensor-parallel-size", "2", "--ffn-dim", "27")
    assert done.returncode
    assert (
        "must be multiples of tensor_parallel_size (2), but one is 27. Use 26 or 28" in done.stderr
    )
    assert "layout_check" not in done.stderr


def test_a_size_that_is_not_ours_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["doctor", "--arch", "transformer"]) == 2
    assert "--arch must be one of moe_transformer, moe_transformer_tiny" in capsys.readouterr().err
