"""How much memory a model of NLLB-MoE's names and index takes on its way in and out.

    python -m tests.interop.stream_memory FOLDER ROWS    (rows of the embedding, the largest tensor)

The folder has the 54B model's 24 + 24 layers, 128 experts in every fourth, and shards, with small
dimensions. Prints one JSON object: sizes of model and largest tensor, and the peaks above what the
process holds before, in bytes. Peaks out count anonymous memory: the checkpoint is mapped, and the
system may take such pages back at any time.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from mtmoe.cli.main import main as run_mtmoe
from mtmoe.config import flatten_config
from mtmoe.interop.huggingface_config import read_settings
from mtmoe.interop.huggingface_tokenizer import json_bytes
from mtmoe.interop.names import HUGGINGFACE_MOE, weight_parts
from mtmoe.interop.safetensors_file import write_tensors
from mtmoe.modules.transformer import Transformer
from tests.interop.golden.make import FOLDERS

SHAPE = {
    "d_model": 256, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_layers": 24,
    "decoder_layers": 24, "encoder_attention_heads": 16, "decoder_attention_heads": 16,
    "num_experts": 128, "encoder_sparse_step": 4, "decoder_sparse_step": 4,
}  # fmt: skip
NUM_SHARDS = 12


def make_folder(folder: Path, rows: int) -> dict[str, int]:
    """Write the made-up model; returns the bytes of all tensors and of the largest."""
    shutil.copytree(FOLDERS["moe"], folder)
    (folder / "model.safetensors").unlink()
    values = json.loads((folder / "config.json").read_text()) | SHAPE | {"vocab_size": rows}
    (folder / "config.json").write_bytes(json_bytes(values))
    config = read_settings(values, "config.json").config
    assert flatten_config(config)["num_experts"] == 128
    with torch.device("meta"):
        shapes = {n: p.shape for n, p in Transformer(config, rows, 1).named_parameters()}
    specs = {}
    for part in weight_parts(config, HUGGINGFACE_MOE):
        shape = tuple(shapes[part.ours] if part.expert is None else shapes[part.ours][1:])
        specs[part.theirs] = (shape[::-1] if part.is_transposed else shape, torch.float32)
    names = list(specs)
    places = {}
    for n in range(NUM_SHARDS):
        file = f"model-{n + 1:05}-of-{NUM_SHARDS:05}.safetensors"
        of_shard = {name: specs[name] for name in names[n::NUM_SHARDS]}
        places |= dict.fromkeys(of_shard, file)
        with open(folder / file, "wb") as stream:
            write_tensors(stream, of_shard, random_tensors(of_shard))
    (folder / "model.safetensors.index.json").write_bytes(json_bytes({"weight_map": places}))
    sizes = [4 * torch.Size(shape).numel() for shape, _ in specs.values()]
    return {"model": sum(sizes), "largest": max(sizes), "tensors": len(sizes)}


def random_tensors(specs: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> Iterator[Tensor]:
    return (torch.rand(shape) for shape, _ in specs.values())


def peak_above_start(action: Callable[[], int], field: str) -> int:
    """The most memory of the kind `field` of /proc/self/status while `action` runs, in bytes."""

    def now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

    start, peak, is_over = now(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.is_set():
            peak = max(peak, now())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = action()
    is_over.set()
    watcher.join()
    assert code == 0
    return peak - start


def main() -> None:
    """Make the folder, take it in, hand it out again."""
    base, rows = Path(sys.argv[1]), int(sys.argv[2])
    warm_up = ["convert", str(FOLDERS["moe"]), "--output", str(base / "warm.pt")]
    assert run_mtmoe(warm_up) == 0  # libraries are loaded
    found = make_folder(base / "hf", rows)
    inwards = ["convert", str(base / "hf"), "--output", str(base / "ours.pt")]
    found["peak_in"] = peak_above_start(lambda: run_mtmoe(inwards), "RssAnon")
    out = ["convert", str(base / "ours.pt"), "--to", "huggingface", "--output", str(base / "out")]
    found["peak_out"] = peak_above_start(lambda: run_mtmoe([*out, "--shard-gb", "0.02"]), "RssAnon")
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
