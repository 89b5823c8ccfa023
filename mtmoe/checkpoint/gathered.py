"""Parts of all ranks to one whole checkpoint, and a whole one to the parts of any layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mtmoe.parallel.slices import gather_whole, slices_of, stored_part


def gather_weights(model: nn.Module) -> dict[str, Tensor] | None:
    """The whole model's state on the host of rank 0; None on the other ranks.

    Parameters are gathered one by one, so a rank holds at most one of them whole. Collective:
    every rank must call it.
    """
    whole = {}
    for name, tensor in model.state_dict().items():
        found = gather_whole(stored_part(tensor), tensor)
        if dist.get_rank() == 0:
            whole[name] = found.cpu().clone()
    return whole if dist.get_rank() == 0 else None


@torch.no_grad()
def load_weights(model: nn.Module, whole: Mapping[str, Tensor]) -> None:
    """Copy this rank's part of a whole state into `model`; names must be equal."""
    own = model.state_dict()
    if own.keys() != whole.keys():
        raise KeyError(f"state differs in {sorted(own.keys() ^ whole.keys())}")
    for name, tensor in own.items():
        stored_part(tensor).copy_(whole[name][slices_of(tensor)])


def gather_adam(state: dict[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any] | None:
    """The whole state of Adam on the host of rank 0, None on the others.

    It is laid out as that of `torch.optim.Adam`. Collective: every rank must call it.

    Args:
        state: the state dict of this rank, whose averages lie as the parameters do.
        parameters: in the order of the state's numbers.
    """
    whole: dict[int, dict[str, Any]] = {}
    for number, values in sorted(state["state"].items()):
        like = parameters[number]
        whole[number] = {
            key: _gather_value(value, like) if isinstance(value, Tensor) else value
            for key, value in values.items()
        }
    return {**state, "state": whole} if dist.get_rank() == 0 else None


def _gather_value(value: Tensor, like: Tensor) -> Tensor:
    """A number of steps is the same on all ranks; averages have the parameter's shape."""
    if value.dim() == 0:
        return value.cpu().clone()
    whole = gather_whole(stored_part(value).to(like.device), like)
    return whole.cpu().clone() if dist.get_rank() == 0 else torch.empty(0)
