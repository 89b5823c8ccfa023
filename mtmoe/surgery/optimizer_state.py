"""The moments of an optimizer, cut to the experts that stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtmoe.errors import CheckpointError
from mtmoe.surgery.scratch import Scratch

OPTIMIZER_STATE = "last_optimizer_state"  # fairseq's name
BUFFERS = ("vocabulary_digest", "choice_bias")  # last parts of names that are no parameters


def slice_moments(
    state: Mapping[str, Any], rows: Mapping[str, Tensor], scratch: Scratch
) -> dict[str, Any]:
    """The optimizer's state for weights of which only some rows stay.

    An expert's moments belong to its weights alone, so those of the rows that stay are still right.

    Args:
        state: the whole file before; its optimizer has one entry a parameter, in their order.
        rows: by weight that loses rows, (K,) int64 those that stay.

    Raises:
        CheckpointError: there is no such state.
    """
    weights = state["model"]
    names = [name for name in weights if name.rpartition(".")[2] not in BUFFERS]
    optimizer = state.get(OPTIMIZER_STATE) or {}
    entries = optimizer.get("state", {})
    if set(entries) != set(range(len(names))):
        raise CheckpointError(
            f"{OPTIMIZER_STATE} must have an entry for each of the {len(names)} weights to be "
            f"kept, but has {len(entries)}. Leave --keep-optimizer out."
        )
    sliced = {}
    for number, name in enumerate(names):
        entry = entries[number]
        if name in rows:
            entry = _slice(entry, weights[name].shape, rows[name], scratch)
        sliced[number] = entry
    return {**optimizer, "state": sliced}


def _slice(
    entry: Mapping[str, Any], shape: torch.Size, rows: Tensor, scratch: Scratch
) -> dict[str, Any]:
    """One parameter's entry: what has the shape of the weight is cut, a step count is not."""
    return {
        key: scratch.select(value, rows)
        if isinstance(value, Tensor) and value.shape == shape
        else value
        for key, value in entry.items()
    }
