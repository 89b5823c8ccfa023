"""The checkpoint that a training starts from, checked before fairseq loads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mtmoe.checkpoint.fairseq_file import as_dict, check_readable
from mtmoe.checkpoint.shard_folder import MODEL
from mtmoe.checkpoint.sharded import open_shards
from mtmoe.config import MultitaskConfig, TransformerConfig
from mtmoe.errors import CheckpointError

DIGEST = "vocabulary_digest"
FUNCTION = ("attention_heads", "activation", "first_position")  # what no shape of a weight tells
READ = ("encoder_tags", "decoder_start")  # what stands around sentences


def check_start(
    path: Path, model: nn.Module, config: TransformerConfig, task: MultitaskConfig
) -> None:
    """Refuse a checkpoint that is missing, damaged, or of another architecture than `model`.

    One of another vocabulary is left to the model, which refuses it with better reason.

    Args:
        config: of `model`.

    Raises:
        CheckpointError: names the first weight or setting that differs.
    """
    state = check_readable(path)
    folder = open_shards(path, state)
    ours, theirs = model.state_dict(), state.get("model")
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
    told = {name: getattr(config, name) for name in FUNCTION}
    _check_settings(path, state, told | {name: getattr(task, name) for name in READ})


def _check_settings(path: Path, state: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Refuse settings with which the same weights would compute something else.

    Raises:
        CheckpointError: names the setting and the flag to give.
    """
    sections = (state.get("cfg") or {}).get("model"), state.get("task_state")
    found: dict[str, Any] = {}
    for section in sections:
        found |= as_dict(section) if section else {}
    for name, value in told.items():
        wanted = found.get(name)
        if wanted is not None and str(wanted) != str(value):
            flag = f"--{name.replace('_', '-')} {wanted}"
            raise CheckpointError(
                f"{name} must be {wanted} as in {path}, but is {value}. Give {flag}, or another "
                "--save-dir."
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no entry" if shape is None else f"the shape {shape}"
