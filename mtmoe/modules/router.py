"""Which experts process a token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtmoe.config import DropPolicy, RouterConfig
from mtmoe.ops.losses import balance_loss
from mtmoe.ops.routing import assign_slots, expert_capacity


@dataclass(frozen=True)
class Routing:
    """Where each token goes; made by `Router`, read by dispatch, losses and statistics.

    T counts real tokens only: padding is never routed.
    """

    expert: Tensor  # (T, K) int64, strongest choice first
    slot: Tensor  # (T, K) int64 place in the expert's queue, or DROPPED
    weight: Tensor  # (T, K) float32 share of the output
    probs: Tensor  # (T, E) float32 probabilities before the choice
    balance_loss: Tensor  # () float32


class Router(nn.Module):
    """Top-k token-choice router (Switch Transformer for k = 1, GShard for k > 1).

    One choice is weighted by its raw probability, which is what trains the router; several are
    weighted by their probabilities divided by their sum.
    """

    def __init__(self, config: RouterConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.num_experts, embed_dim))

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Routing:
        """Route the tokens of `x`, (T, D).

        Scores are float32 whatever the dtype of `x`: in half precision, rounding changes which
        expert wins (arXiv:2101.03961, "selective precision"). In evaluation nothing is random and
        nothing is dropped.

        Args:
            generator: random numbers of this layer and step; needed in training if the config
                asks for jitter or random drops.
        """
        with torch.autocast(x.device.type, enabled=False):
            probs = torch.softmax(self._jitter(x.float(), generator) @ self.weight.float().t(), -1)
        chosen, expert = probs.topk(self.config.top_k, dim=-1)  # (T, K) each
        weight = chosen if self.config.top_k == 1 else chosen / chosen.sum(-1, keepdim=True)
        slot = self._slots(expert, generator)
        return Routing(expert, slot, weight, probs, balance_loss(probs, expert[:, 0]))

    def _jitter(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.training or self.config.jitter == 0:
            return x
        noise = torch.rand(x.shape, device=x.device, generator=_drawn_from(generator))
        return x * (1 + self.config.jitter * (2 * noise - 1))

    def _slots(self, expert: Tensor, generator: torch.Generator | None) -> Tensor:
        config = self.config
        if not self.training or config.capacity_factor == 0:
            return torch.zeros_like(expert)  # dropless: no queue is needed to order the rows
        T = expert.shape[0]
        priority = None
        if config.drop_policy is DropPolicy.random:
            priority = torch.rand(T, device=expert.device, generator=_drawn_from(generator))
        capacity = expert_capacity(config.capacity_factor, config.top_k, T, config.num_experts)
        return assign_slots(expert, config.num_experts, capacity, priority)


def _drawn_from(generator: torch.Generator | None) -> torch.Generator:
    assert generator is not None, "a router in training draws from the generator that it is given"
    return generator
