"""The checkpoint that a training starts from, checked before fairseq loads it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from mtmoe.checkpoint.fairseq_file import check_readable
from mtmoe.checkpoint.shard_folder import MODEL
from mtmoe.checkpoint.sharded import open_shards
from mtmoe.config import DecoderStart
from mtmoe.errors import CheckpointError

DIGEST = "vocabulary_digest"


def check_start(path: Path, model: nn.Module) -> None:
    """Refuse a checkpoint that is missing, damaged, or of another architecture than `model`.

    One of another vocabulary is left to the model, which refuses it with better reason.

    Raises:
        CheckpointError: names the first weight that differs.
    """
    state = check_readable(path)
    folder = open_shards(path, state)
    ours, theirs = model.state_dict(), state.get("model")
    start = (state.get("task_state") or {}).get("decoder_start", DecoderStart.tag)
    if start != DecoderStart.tag:
        raise CheckpointError(
            f"decoder_start of {path} must be tag to be trained on, but is {start}: training would "
            "start the decoder otherwise. Use mtmoe translate."
        )
    if not isinstance(theirs, dict):
        raise CheckpointError(
            f"checkpoint must hold the weights of a model, but {path} holds none. Give another one."
        )
    if DIGEST in theirs and not torch.equal(theirs[DIGEST], ours[DIGEST].cpu()):
        return
    if folder is not None:
        shapes = {name: shape for name, (shape, _) in folder.shapes(MODEL).items()}
    else:
        shapes = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    for name in sorted(ours.keys() | shapes.keys()):
        wanted = _shape(tuple(ours[name].shape) if name in ours else None)
        found = _shape(shapes.get(name))
        if wanted != found:
            raise CheckpointError(
                f"the model must be that of {path}, but its weight {name} has {wanted} where the "
                f"checkpoint has {found}. Give the settings that it was trained with, or another "
                "--save-dir."
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no entry" if shape is None else f"the shape {shape}"
