"""fairseq-hydra-train under torchrun, with the keys of docs/parallel.md, trains a layout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from torch.testing import assert_close

from mtmoe.checkpoint.fairseq_file import check_readable
from tests.fairseq_ranks import train_on_ranks

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SETTINGS = """
common: {{user_dir: {root}/mtmoe, cpu: true, seed: 3, no_progress_bar: true}}
task: {{_name: multitask_translation, data: {data}, expert_parallel_size: 2, zero: gradients}}
model:
  {{_name: moe_transformer_tiny, embed_dim: 32, ffn_dim: 64, attention_heads: 4, num_experts: 4}}
criterion: {{_name: moe_cross_entropy, label_smoothing: 0.05}}
optimizer: {{_name: fused_adam}}
lr_scheduler: {{_name: inverse_sqrt, warmup_updates: 5}}
optimization: {{lr: [0.005], clip_norm: 1.0, max_update: 5, update_freq: [1]}}
dataset: {{max_tokens: 300, num_workers: 0}}
checkpoint: {{save_dir: {save_dir}, no_epoch_checkpoints: true}}
hydra: {{run: {{dir: {save_dir}/hydra}}}}
"""


def keys_of_the_page():
    """The YAML that docs/parallel.md tells to add."""
    page = (ROOT / "docs/parallel.md").read_text("utf-8")
    return re.search(r"```yaml\n(distributed_training:.*?)```", page, re.DOTALL)[1]


@pytest.mark.long
def test_the_keys_of_the_page_train_the_asked_layout(toy_data, tmp_path):
    values = {"root": ROOT, "data": toy_data, "save_dir": tmp_path / "hydra"}
    (tmp_path / "layout.yaml").write_text(SETTINGS.format(**values) + keys_of_the_page())
    launch = [str(BIN / "torchrun"), "--nproc_per_node", "2", str(BIN / "fairseq-hydra-train")]
    done = subprocess.run(
        [*launch, "--config-dir", str(tmp_path), "--config-name", "layout"],
        capture_output=True, text=True, timeout=170, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    options = ["--expert-parallel-size=2", "--zero=gradients", "--max-tokens=300", "--lr=0.005"]
    options += ["--warmup-updates=5", "--max-update=5", "--adam-betas=(0.9, 0.999)"]
    expected, _ = train_on_ranks(2, toy_data, tmp_path / "words", *options)
    found = check_readable(tmp_path / "hydra" / "checkpoint_last.pt")
    for name, tensor in expected["model"].items():
        assert_close(found["model"][name], tensor, atol=1e-6, rtol=0)
