"""`mtmoe doctor`: a layout that agrees with one process, and a build that does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.tensor import DTensor

from mtmoe.config import AdamConfig, MeshConfig, RouterConfig, TransformerConfig, Zero
from mtmoe.parallel.mesh import make_mesh
from mtmoe.report import layout_check
from mtmoe.report.layout_check import examine, scale_down
from tests.ranks import run_ranks

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


def check_broken():
    reduce = layout_check.reduce_gradients

    def reduce_wrongly(parameters, mesh):
        parameters = list(parameters)
        reduce(parameters, mesh)
        for parameter in parameters:
            if isinstance(parameter, DTensor) and parameter.grad is not None:
                parameter.grad.mul_(2)  # as by the number of expert ranks

    layout_check.reduce_gradients = reduce_wrongly
    worst, _ = look(MeshConfig(2, 1, Zero.none))
    assert worst["gradient norm"] > 1e-3  # Adam's step hardly knows the scale of a gradient


def test_a_good_build_agrees():
    run_ranks(check_good, 4)


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


def doctor(num_ranks, *options):
    launch = [str(BIN / "torchrun"), "--nproc_per_node", str(num_ranks), str(BIN / "mtmoe")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*launch, "doctor", "--cpu", *options],
        capture_output=True, text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_says_its_verdict():
    options = ["--expert-parallel-size", "2", "--zero", "parameters", "--max-tokens", "4096"]
    done = doctor(2, *options, "--checkpoint-activations", "keep_communication")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("data 1 x expert 2 x tensor 1 agrees with one")


@pytest.mark.long
def test_a_layout_that_does_not_fit_is_one_sentence():
    done = doctor(2, "--tensor-parallel-size", "2", "--ffn-dim", "27")
    assert done.returncode
    assert "must be multiples of tensor_parallel_size (2), but one is 27" in done.stderr
    assert "layout_check" not in done.stderr
