"""`mtmoe convert --to sharded` and back changes nothing, and needs memory for one tensor."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from mtmoe.checkpoint.change_format import ADAM
from mtmoe.checkpoint.fairseq_file import load_checkpoint, write_checkpoint
from mtmoe.cli.main import main
from mtmoe.inference.engine import Translator
from tests.inference.tiny_model import tiny_state

SETTINGS = {
    "embed_dim": 128, "ffn_dim": 1024, "num_experts": 24, "encoder_layers": 4, "decoder_layers": 4,
}  # fmt: skip


def write_with_adam(path, **sizes):
    """A checkpoint that has been trained, with a weight that never had a gradient."""
    state = tiny_state(("de", "en"), ("de-en", "en-de"), **sizes)
    weights = [w for name, w in state["model"].items() if name != "vocabulary_digest"]
    generator = torch.Generator().manual_seed(1)
    moments = {
        number: {
            "step": torch.tensor(3.0),
            "exp_avg": torch.rand(w.shape, generator=generator),
            "exp_avg_sq": torch.rand(w.shape, generator=generator),
        }
        for number, w in enumerate(weights)
        if number != 2
    }
    groups = [{"lr": 0.1, "params": list(range(len(weights)))}]
    state[ADAM] = {"state": moments, "param_groups": groups, "loss_scale": 2.0}
    write_checkpoint(path, state)
    return state


def convert(source, kind, output):
    return main(["convert", str(source), "--to", kind, "--output", str(output)])


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected


def test_there_and_back_is_the_same(tmp_path, capsys):
    expected = write_with_adam(tmp_path / "a.pt")
    assert convert(tmp_path / "a.pt", "sharded", tmp_path / "b") == 0
    assert convert(tmp_path / "b", "gathered", tmp_path / "c.pt") == 0
    assert_same(torch.load(tmp_path / "c.pt", weights_only=True), expected)
    assert {path.name for path in tmp_path.iterdir()} == {"a.pt", "b", "c.pt"}
    lines = ["Save the file.", "Close all windows!"]
    translations = [
        Translator.from_checkpoint(tmp_path / name).translate(lines, "en", "de")
        for name in ("a.pt", "b")
    ]
    assert translations[0] == translations[1]
    assert capsys.readouterr().out == f"{tmp_path / 'b'}\n{tmp_path / 'c.pt'}\n"


def test_surgery_reads_a_folder_with_its_optimizer(tmp_path):
    write_with_adam(tmp_path / "a.pt")
    assert convert(tmp_path / "a.pt", "sharded", tmp_path / "b") == 0
    pruned = []
    for name in ("a.pt", "b"):
        options = ["--keep", "2", "--criterion", "random", "--keep-optimizer"]
        out = str(tmp_path / f"{name}-pruned.pt")
        assert main(["prune", str(tmp_path / name), *options, "--output", out]) == 0
        pruned.append(load_checkpoint(out).state)
    for key in ("model", ADAM):
        assert_same(pruned[1][key], pruned[0][key])


MISTAKES = {
    "must be gathered, but is sharded already": ("b", "sharded"),
    "must be sharded, but is gathered already": ("a.pt", "gathered"),
}


@pytest.mark.parametrize("message", list(MISTAKES))
def test_what_is_there_already_is_refused(tmp_path, capsys, message):
    write_with_adam(tmp_path / "a.pt")
    convert(tmp_path / "a.pt", "sharded", tmp_path / "b")
    source, kind = MISTAKES[message]
    assert convert(tmp_path / source, kind, tmp_path / "c") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


# What is freed goes back to the system at once: glibc keeps some tensors, now more, now fewer.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
WATCH = """
import json, sys
from mtmoe.cli.main import main
from tests.interop.stream_memory import peak_above_start

small, large, base = sys.argv[1:]
def convert(source, kind, out):
    return lambda: main(["convert", source, "--to", kind, "--output", out])
convert(small, "sharded", base + "/warm")()
convert(base + "/warm", "gathered", base + "/warm.pt")()
found = [
    peak_above_start(convert(large, "sharded", base + "/x"), "RssAnon"),
    peak_above_start(convert(base + "/x", "gathered", base + "/y.pt"), "RssAnon"),
]
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_holds_the_largest_tensor_not_the_model(tmp_path):
    write_with_adam(tmp_path / "small.pt")
    state = write_with_adam(tmp_path / "large.pt", **SETTINGS)
    arguments = [str(tmp_path / "small.pt"), str(tmp_path / "large.pt"), str(tmp_path)]
    found = subprocess.run(
        [sys.executable, "-c", WATCH, *arguments],
        capture_output=True, text=True, check=True, env=os.environ | GIVE_BACK,
    )  # fmt: skip
    there, back = json.loads(found.stdout.splitlines()[-1])
    largest = max(tensor.nbytes for tensor in state["model"].values())
    whole = 3 * sum(tensor.nbytes for tensor in state["model"].values())
    assert there < 1.5 * largest, f"{there} bytes, largest tensor {largest}, whole {whole}"
    assert back < 1.75 * largest, f"{back} bytes, largest tensor {largest}, whole {whole}"
