"""Sums over tokens that tell how a router behaves."""

from __future__ import annotations

import torch
from torch import Tensor

from mtmoe.modules.router import Routing
from mtmoe.ops.routing import DROPPED, SKIPPED, count_numbers


@torch.no_grad()
def routing_statistics(routing: Routing) -> dict[str, Tensor]:
    """Sums that can be added over batches and ranks; padding is in none of them.

    Returns:
        tokens: (E,) int64, choices of each expert, before dropping; choices: (), their number;
        dropped: (), choices without a slot; entropy: (), of the probabilities in nats, so weighted
        that entropy / choices is the mean over tokens. Skipped choices are in none of them.
    """
    probs, is_wanted = routing.probs, routing.slot != SKIPPED
    (T, E), choices = probs.shape, is_wanted.sum()
    expert = routing.expert.masked_fill(~is_wanted, E)
    entropy = -(probs * probs.clamp_min(1e-30).log()).sum() * choices / max(T, 1)
    return {
        "tokens": count_numbers(expert.flatten(), E + 1)[:E],
        "choices": choices,
        "dropped": (routing.slot == DROPPED).sum(),
        "entropy": entropy,
    }
