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
        state: the whole file before; its optimizer numbers the parameters in their order.
        rows: by weight that loses rows, (K,) int64 those that stay.

    Raises:
        CheckpointError: there is no such state.
    """
    weights = state["model"]
    names = [name for name in weights if name.rpartition(".")[2] not in BUFFERS]
    optimizer = state.get(OPTIMIZER_STATE) or {}
    entries = optimizer.get("state", {})
    found = sum(len(group["params"]) for group in optimizer.get("param_groups", ()))
    if not entries or found != len(names):
        raise CheckpointError(
            f"{OPTIMIZER_STATE} must have an entry for each of the {len(names)} weights to be "
            f"kept, but has {found if entries else 0}. Leave --keep-optimizer out."
        )
    sliced = {}
    for number, entry in entries.items():  # weights that never had a gradient have none
        name = names[number]
        is_cut = name in rows
        sliced[number] = (
            _slice(entry, weights[name].shape, rows[name], scratch) if is_cut else entry
        )
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
