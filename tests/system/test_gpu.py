"""Training, the layouts of one rank, and translation on a GPU, beside the same on a CPU.

bash tests/run.sh -m gpu
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.config import BackendChoice, RouterConfig, TransformerConfig
from mtmoe.modules.initialise import initialise
from mtmoe.modules.moe_layer import MoELayer
from mtmoe.modules.tokens import Tokens
from mtmoe.ops.routing import RouterKey
from tests.fairseq_run import SETTINGS
from tests.torchrun import BIN, ROOT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
UPDATES = "30"
PLAIN = ["--user-dir", str(ROOT / "mtmoe"), "--max-update", UPDATES, "--warmup-updates", "5"]
PLAIN += ["--capacity-factor", "1.0", "--drop-policy", "order"]  # a GPU draws other numbers
ON_ONE_RANK = {
    "ZeRO-3": ["--zero", "parameters"],
    "ZeRO-2": ["--zero", "gradients"],
    "state on the host": ["--state-location", "host", "--tile-size", "1000"],
    "recomputed": ["--checkpoint-activations", "full"],
    "communication kept": ["--checkpoint-activations", "keep_communication"],
    "sharded checkpoint": ["--checkpoint-format", "sharded"],
}


def run(*command):
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=170,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done


def train(data, save_dir, *options, launch=()):
    """The loss of each logged update, in bits."""
    program = [*launch, str(BIN / "fairseq-train"), str(data), *SETTINGS, *PLAIN]
    out = run(*program, *options, "--save-dir", save_dir)
    logged = [line for line in (out.stdout + out.stderr).splitlines() if "| train_inner |" in line]
    return [float(json.loads(line[line.index("{") :])["loss"]) for line in logged]


@pytest.fixture(scope="module")
def on_cpu(toy_data, tmp_path_factory) -> tuple[list[float], Path]:
    folder = tmp_path_factory.mktemp("cpu")
    return train(toy_data, folder, "--cpu"), folder / "checkpoint_last.pt"


def test_float32_training_equals_that_on_a_cpu(toy_data, tmp_path, on_cpu):
    losses = train(toy_data, tmp_path)
    assert len(losses) == int(UPDATES)
    assert losses == pytest.approx(on_cpu[0], abs=0.02)
    assert losses[-1] < losses[0] - 0.5


def test_bfloat16_learns_alike(toy_data, tmp_path, on_cpu):
    losses = train(toy_data, tmp_path, "--bf16")
    assert losses[-1] == pytest.approx(on_cpu[0][-1], abs=0.3)


@pytest.mark.parametrize("name", list(ON_ONE_RANK))
def test_layouts_of_one_rank_train_alike_over_nccl(toy_data, tmp_path, on_cpu, name):
    launch = [BIN / "torchrun", "--nproc_per_node", "1", "--master_port", "0"]
    losses = train(toy_data, tmp_path, *ON_ONE_RANK[name], launch=launch)
    assert losses == pytest.approx(on_cpu[0], abs=0.02)
    found = load_checkpoint(tmp_path / "checkpoint_last.pt").state["model"]
    for key, tensor in load_checkpoint(on_cpu[1]).state["model"].items():
        assert found[key].shape == tensor.shape


def test_translations_equal_those_on_a_cpu(toy_data, tmp_path, on_cpu):
    text = tmp_path / "text"
    text.write_text("abc def\n\nfgh\nab cd ef gh\n" * 20)
    languages = ["--source-lang", "aa", "--target-lang", "bb", "--quiet"]
    command = [BIN / "mtmoe", "translate", "--model", on_cpu[1], "--input", text, *languages]
    found = {d: run(*command, "--device", d, "--dtype", "float32").stdout for d in ("cpu", "cuda")}
    assert found["cuda"] == found["cpu"]
    assert found["cuda"].count("\n") == 80
    assert run(*command, "--device", "cuda", "--dtype", "bfloat16").stdout.count("\n") == 80


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("capacity_factor", [0.0, 1.0])
def test_layer_does_not_wait_for_the_gpu(capacity_factor):
    config = TransformerConfig(
        embed_dim=64,
        ffn_dim=128,
        attention_heads=2,
        backend=BackendChoice.auto,
        router=RouterConfig(num_experts=8, top_k=2, capacity_factor=capacity_factor, jitter=0.1),
    )
    layer = MoELayer(config, 0)
    initialise(layer, 1)
    layer = layer.cuda()
    x = torch.randn(4, 32, 64, device="cuda", requires_grad=True)
    tokens = Tokens((4, 32), real=torch.arange(120, device="cuda"))

    def step():
        y, routing = layer(x, tokens, RouterKey(1, 1))
        (y.square().sum() + routing.balance_loss).backward()

    step()  # kernels are compiled and loaded
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
