"""The chain of catalog50 in miniature, by its own script, on the committed sample."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests/samples/gettext"
SMALL = ["model.embed_dim=64", "model.ffn_dim=64", "model.attention_heads=4"]
DATA = """languages: [en, de, es]
files:
  - {{pair: en-de, source: {sample}/sample.en, target: {sample}/sample.de}}
  - {{pair: en-es, source: {sample}/sample.en, target: {sample}/sample.es}}
debian: {{}}
split: {{test: 40, valid: 30, held_out_share: 0.1}}
vocabulary: {{size: 1000}}
"""


def write_descriptions(folder):
    """A cache with descriptions in two languages; each title and text is a line of the sample."""
    folder.mkdir(parents=True)
    for code in ("en", "de"):
        lines = (SAMPLE / f"sample.{code}").read_text("utf-8").splitlines()
        stanzas = [
            f"Description-md5: {n}\nDescription-{code}: {lines[n]}\n {lines[n + 1]}\n"
            for n in range(0, len(lines) - 1, 2)
        ]
        (folder / f"x_Translation-{code}").write_text("\n".join(stanzas), "utf-8")
    index = {"en": {"x_Translation-en": "0"}, "de": {"x_Translation-de": "0"}, "es": {}}
    (folder / "index.json").write_text(json.dumps(index))


def run(folder, *words):
    environment = os.environ | {
        "OUT": str(folder / "run"),
        "DATA": str(folder / "data.yaml"),
        "MTMOE_CACHE": str(folder / "cache"),
        "MINUTES": "0.1",
        "DIRECTIONS": "en-de",
        "STREAMS": "title:de-de",
        "OMP_NUM_THREADS": "2",
    }
    command = ["bash", str(ROOT / "recipes/catalog50/run.sh"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_chain_leaves_what_it_promises(tmp_path):
    write_descriptions(tmp_path / "cache/debian")
    (tmp_path / "data.yaml").write_text(DATA.format(sample=SAMPLE))
    text = run(tmp_path, "prepare")
    assert text.returncode == 0, text.stderr[-3000:]
    assert "| language | sentences | words |" in text.stdout
    out = tmp_path / "run"
    assert json.loads((out / "manifest.json").read_text())["languages"] == ["de", "en", "es"]
    assert not (out / "checkpoints").exists()

    subset = "dataset.valid_subset='valid,valid_denoising:de,valid_title:en-de'"
    whole = run(tmp_path, *SMALL, subset)
    assert whole.returncode == 0, whole.stderr[-3000:]
    log = (out / "checkpoints/train.log").read_text("utf-8")
    assert "share_denoising" in log
    assert "valid on 'valid_title:en-de'" in log
    rows = json.loads((out / "scores.json").read_text())
    assert [(row["system"], row["direction"]) for row in rows] == [
        ("model", "en-de"), ("copy", "en-de"),
    ]  # fmt: skip
    assert "| title:de-de | " in (out / "tasks.md").read_text("utf-8")
