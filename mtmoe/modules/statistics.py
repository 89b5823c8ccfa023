"""Sums over tokens that tell how a router behaves."""

from __future__ import annotations

import torch
from torch import Tensor

from mtmoe.modules.router import Routing


@torch.no_grad()
def routing_statistics(routing: Routing) -> dict[str, Tensor]:
    """Sums that can be added over batches and ranks; padding is in none of them.

    Returns:
        tokens: (E,) int64, choices of each expert, before dropping; choices: (), their number;
        dropped: (), choices without a slot; entropy: (), of the probabilities in nats, summed over
        choices, so that entropy / choices is the mean over tokens.
    """
    probs, K = routing.probs, routing.expert.shape[1]
    entropy = -(probs * probs.clamp_min(1e-30).log()).sum() * K
    return {
        "tokens": torch.bincount(routing.expert.flatten(), minlength=probs.shape[1]),
        "choices": torch.tensor(routing.expert.numel(), device=probs.device),
        "dropped": (routing.slot < 0).sum(),
        "entropy": entropy,
    }
