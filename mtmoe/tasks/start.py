"""The checkpoint that a training starts from, checked before fairseq loads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtmoe.checkpoint.fairseq_file import as_dict, check_readable
from mtmoe.config import MultitaskConfig, TransformerConfig
from mtmoe.errors import CheckpointError

DEFAULT_FILE = "checkpoint_last.pt"  # of fairseq's --restore-file
DIGEST = "vocabulary_digest"
FUNCTION = ("attention_heads", "activation", "first_position")  # what no shape of a weight tells
READ = ("encoder_tags", "decoder_start")  # what stands around sentences


def find_start(save_dir: str, restore_file: str, finetune_from_model: str | None) -> Path | None:
    """The file that fairseq will load: that of an earlier run, else the one to fine-tune.

    fairseq starts from nothing where a named --restore-file is not there; we refuse it.
    """
    if restore_file != DEFAULT_FILE:
        return Path(restore_file)
    last = Path(save_dir) / DEFAULT_FILE
    if last.exists():
        return last
    return Path(finetune_from_model) if finetune_from_model else None


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
    ours, theirs = model.state_dict(), state.get("model")
    if not isinstance(theirs, dict):
        raise CheckpointError(
            f"checkpoint must hold the weights of a model, but {path} holds none. Give another one."
        )
    if DIGEST in theirs and not torch.equal(theirs[DIGEST], ours[DIGEST].cpu()):
        return
    for name in sorted(ours.keys() | theirs.keys()):
        wanted, found = _shape(ours.get(name)), _shape(theirs.get(name))
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


def _shape(tensor: Tensor | None) -> str:
    return "no entry" if tensor is None else f"the shape {tuple(tensor.shape)}"
