"""Which slot of its expert each (token, choice) gets."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

DROPPED = -1


def expert_capacity(factor: float, top_k: int, num_tokens: int, num_experts: int) -> int:
    """Slots per expert, at least 1: factor * top_k * tokens / experts, rounded up (GShard)."""
    return max(1, math.ceil(factor * top_k * num_tokens / num_experts))


def assign_slots(
    expert: Tensor, num_experts: int, capacity: int, priority: Tensor | None = None
) -> Tensor:
    """Give each (token, choice) a slot of its expert, first come, first served.

    All first choices are placed before any second choice. Within one choice, tokens come in order
    of `priority`, or of the sequence if it is None. Random priorities make this Random Token
    Selection (Kim et al. 2021, arXiv:2109.10465); without them a full expert always turns away
    the end of the batch.

    Args:
        expert: (T, K) int64, each in [0, num_experts).
        priority: (T,) float; the highest is placed first.

    Returns:
        (T, K) int64, each in [0, capacity), or `DROPPED` where the expert was full.
    """
    T, K = expert.shape
    if priority is None:
        order = torch.arange(T, device=expert.device)
    else:
        order = priority.argsort(descending=True, stable=True)
    arrivals = F.one_hot(expert[order].t().flatten(), num_experts)  # (K * T, E)
    place = ((arrivals.cumsum(0) - 1) * arrivals).sum(1)  # (K * T,) in its expert's queue
    slot = torch.empty_like(expert)
    slot[order] = place.view(K, T).t()
    return slot.masked_fill(slot >= capacity, DROPPED)


def layer_generator(seed: int, layer: int, device: torch.device) -> torch.Generator:
    """The random numbers of one router in one forward: equal whenever (seed, layer) are equal.

    Recomputation and the ranks of a tensor group thus draw the same numbers.
    """
    return torch.Generator(device).manual_seed(mix_seed(seed, layer))


def mix_seed(*parts: int) -> int:
    """Fold integers into one seed of 63 bits (the mixing steps of splitmix64)."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
