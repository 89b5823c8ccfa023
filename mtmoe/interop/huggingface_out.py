"""A checkpoint of ours as a folder that Hugging Face's transformers loads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mtmoe.checkpoint.fairseq_file import Checkpoint
from mtmoe.interop.huggingface_config import (
    Reading,
    check_exportable,
    generation_settings,
    write_settings,
)
from mtmoe.interop.huggingface_tokenizer import json_bytes, plan_layout, tokenizer_files
from mtmoe.interop.names import (
    EMBEDDING,
    HUGGINGFACE_DENSE,
    HUGGINGFACE_MOE,
    Part,
    weight_parts,
)
from mtmoe.interop.safetensors_file import spec_bytes, write_tensors

Specs = dict[str, tuple[tuple[int, ...], torch.dtype]]


def write_folder(checkpoint: Checkpoint, folder: Path, shard_bytes: int) -> list[str]:
    """Write config, tokenizer and weights into `folder`, which is there and empty.

    Memory holds one tensor of theirs, and what of ours it is made of.

    Args:
        shard_bytes: weights of more than this go into several files.

    Returns:
        The names of the weight files.

    Raises:
        ConfigError: their networks cannot represent a setting.
        OSError: the disk is full or the folder is not writable.
    """
    config = checkpoint.config
    check_exportable(config)
    layout = plan_layout(checkpoint.vocabulary)
    dialect = HUGGINGFACE_MOE if config.moe_layer_names else HUGGINGFACE_DENSE
    parts = list(weight_parts(config, dialect))
    specs = {part.theirs: _spec(checkpoint, part, len(layout.order)) for part in parts}
    dtype = str(specs[dialect.embedding][1]).removeprefix("torch.")
    start = checkpoint.decoder_start
    reading = Reading(checkpoint.encoder_tags, start, checkpoint.directions, layout.unnamed)
    files = {
        **tokenizer_files(checkpoint.vocabulary, layout),
        "config.json": json_bytes(write_settings(config, len(layout.order), reading, dtype)),
        "generation_config.json": json_bytes(generation_settings(start, layout.suppressed)),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    order = torch.tensor(layout.order)
    return _write_weights(checkpoint, folder, _shards(parts, specs, shard_bytes), specs, order)


def _spec(
    checkpoint: Checkpoint, part: Part, num_symbols: int
) -> tuple[tuple[int, ...], torch.dtype]:
    ours = checkpoint.weights[part.ours]
    shape = tuple(ours.shape if part.expert is None else ours.shape[1:])
    shape = shape[::-1] if part.is_transposed else shape
    return (num_symbols, *shape[1:]) if part.ours == EMBEDDING else shape, ours.dtype


def _shards(parts: Sequence[Part], specs: Specs, shard_bytes: int) -> list[list[Part]]:
    """The parts in order, as many in each file as fit, at least one."""
    shards: list[list[Part]] = [[]]
    size = 0
    for part in parts:
        needed = spec_bytes(*specs[part.theirs])
        if shards[-1] and size + needed > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(part)
        size += needed
    return shards


def _write_weights(
    checkpoint: Checkpoint,
    folder: Path,
    shards: Sequence[Sequence[Part]],
    specs: Specs,
    order: Tensor,
) -> list[str]:
    names = ["model.safetensors"]
    if len(shards) > 1:
        total = len(shards)
        names = [f"model-{n:05}-of-{total:05}.safetensors" for n in range(1, total + 1)]
    for name, parts in zip(names, shards, strict=True):
        with open(folder / name, "wb") as file:
            of_file = {part.theirs: specs[part.theirs] for part in parts}
            write_tensors(file, of_file, _tensors(checkpoint, parts, order))
    if len(shards) > 1:
        places = {p.theirs: name for name, ps in zip(names, shards, strict=True) for p in ps}
        size = sum(spec_bytes(*spec) for spec in specs.values())
        index = {"metadata": {"total_size": size}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_bytes(json_bytes(index))
    return names


def _tensors(checkpoint: Checkpoint, parts: Sequence[Part], order: Tensor) -> Iterator[Tensor]:
    for part in parts:
        tensor = checkpoint.weights[part.ours]
        if part.ours == EMBEDDING:
            yield tensor[order]
            continue
        tensor = tensor if part.expert is None else tensor[part.expert]
        yield tensor.t() if part.is_transposed else tensor
