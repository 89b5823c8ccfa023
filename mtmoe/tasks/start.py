"""The checkpoint that a training starts from, checked before fairseq loads it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from mtmoe.checkpoint.fairseq_file import check_readable
from mtmoe.config import DecoderStart
from mtmoe.errors import CheckpointError

DEFAULT_FILE = "checkpoint_last.pt"  # of fairseq's --restore-file
DIGEST = "vocabulary_digest"


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


def check_start(path: Path, model: nn.Module) -> None:
    """Refuse a checkpoint that is missing, damaged, or of another architecture than `model`.

    One of another vocabulary is left to the model, which refuses it with better reason.

    Raises:
        CheckpointError: names the first weight that differs.
    """
    state = check_readable(path)
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
    for name in sorted(ours.keys() | theirs.keys()):
        wanted, found = _shape(ours.get(name)), _shape(theirs.get(name))
        if wanted != found:
            raise CheckpointError(
                f"the model must be that of {path}, but its weight {name} has {wanted} where the "
                f"checkpoint has {found}. Give the settings that it was trained with, or another "
                "--save-dir."
            )


def _shape(tensor: Tensor | None) -> str:
    return "no entry" if tensor is None else f"the shape {tuple(tensor.shape)}"
