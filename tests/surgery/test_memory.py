"""Surgery needs memory for one tensor at most, not for the model."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mtmoe.checkpoint.fairseq_file import load_checkpoint
from tests.inference.tiny_model import write_tiny_checkpoint

WATCH = """
import json, re, sys, threading, time
import torch, scipy.optimize
import mtmoe.surgery.aggregate, mtmoe.surgery.merge, mtmoe.surgery.upcycle
from mtmoe.cli.main import main

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

first, second = map(json.loads, sys.argv[1:])
assert main(first) == 0  # imports what a run imports
before = peak = anonymous()
done = threading.Event()

def watch():
    global peak
    while not done.is_set():
        peak = max(peak, anonymous())
        time.sleep(0.002)

thread = threading.Thread(target=watch)
thread.start()
code = main(second)
done.set()
thread.join()
print(peak - before)
sys.exit(code)
"""
SETTINGS = {
    "embed_dim": 128, "ffn_dim": 1024, "num_experts": 24, "encoder_layers": 4, "decoder_layers": 4,
}  # fmt: skip
COMMANDS = ("prune", "aggregate", "upcycle")


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("command", COMMANDS)
def test_anonymous_memory_stays_below_two_layers_of_the_model(tmp_path, command):
    dense = {"moe_every": 0} if command == "upcycle" else {}
    calls = []
    for name, sizes in (("small", {}), ("large", SETTINGS)):
        (tmp_path / name).mkdir()
        path = str(write_tiny_checkpoint(tmp_path / name, **(sizes | dense)))
        inputs = [path, path] if command == "aggregate" else [path]
        options = (
            ["--keep", "3" if name == "small" else "16", "--criterion", "random"]
            if command == "prune"
            else []
        )
        options = ["--experts", "16"] if command == "upcycle" else options
        output = str(tmp_path / name / "out.pt")
        calls.append(json.dumps([command, *inputs, "--output", output, *options]))
    found = subprocess.run(
        [sys.executable, "-c", WATCH, *calls], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    num_bytes = int(found.stdout.split()[-1])
    weights = load_checkpoint(output).weights
    of_layer = sum(w.nbytes for name, w in weights.items() if name.startswith("encoder.1.feed"))
    whole = sum(w.nbytes for w in weights.values())
    assert num_bytes < 2 * of_layer, f"{num_bytes} of {whole} bytes, one layer {of_layer}"
