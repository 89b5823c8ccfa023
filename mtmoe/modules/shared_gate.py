"""How the experts of an MoE layer and the dense network beside them are added up."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmoe.config import SharedMode, TransformerConfig
from mtmoe.ops.losses import budget_loss
from mtmoe.ops.precision import at_least_float32


class SharedGate(nn.Module):
    """Learned shares of the experts and of the dense network, by token.

    - mixed: c_0 * experts + c_1 * shared with c = softmax(W x + b) (residual MoE, Rajbhandari et
      al. 2022, arXiv:2201.05596).
    - conditional: g * experts + (1 - g) * shared with g = sigmoid(w x + b), whose mean a budget
      loss holds; in training some tokens have g = 0 (conditional MoE routing, Elbayad et al. 2022,
      arXiv:2212.07571).

    The mode `add`, experts + shared (DeepSeekMoE, arXiv:2401.06066), needs no gate.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.is_conditional = config.shared_mode is SharedMode.conditional
        self.budget, self.dropout = config.gate_budget, config.gate_dropout
        self.score = nn.Linear(config.embed_dim, 1 if self.is_conditional else 2)
        self.fixed: nn.Module | None = None  # in inference: `score` laid out for products

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The shares for `x`, (T, D).

        Args:
            generator: random numbers of this layer and step, for `gate_dropout` in training.

        Returns:
            (T, 2) float32 shares of experts and shared network, which sum to 1; and the budget
            loss, () float32, which is 0 for `mixed`.
        """
        if self.fixed is not None:
            return self._share_fixed(self.fixed(x))
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = map(at_least_float32, (self.score.weight, self.score.bias))
            scores = at_least_float32(x) @ weight.t() + bias  # (T, 1 or 2)
            if not self.is_conditional:
                return scores.softmax(-1), scores.new_zeros(())
            gate = self._shut_some(scores.sigmoid(), generator)  # (T, 1)
            loss = budget_loss(gate.squeeze(1), self.budget)
            return torch.cat([gate, 1 - gate], dim=1), loss

    def _share_fixed(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """In inference: softmax over rows, which does not depend on how many there are."""
        if self.is_conditional:  # the sigmoid of the score is the softmax of the score and 0
            scores = F.pad(scores, (0, 1))
        return scores.softmax(-1), scores.new_zeros(())

    def _shut_some(self, gate: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.training or self.dropout == 0:
            return gate
        assert generator is not None, "gate dropout draws from the generator of the layer"
        noise = torch.rand(gate.shape, device=gate.device, generator=generator)
        return gate * (noise >= self.dropout)
