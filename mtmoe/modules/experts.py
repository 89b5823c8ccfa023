"""Feed-forward networks: one, or one per expert."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmoe.config import TransformerConfig
from mtmoe.ops.expert_ffn import expert_ffn, fast_expert_ffn


class FeedForward(nn.Module):
    """The dense FFN: linear, ReLU, linear."""

    def __init__(self, config: TransformerConfig, ffn_dim: int) -> None:
        super().__init__()
        self.fc_in = nn.Linear(config.embed_dim, ffn_dim)
        self.fc_out = nn.Linear(ffn_dim, config.embed_dim)
        self.activation_dropout = config.activation_dropout

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        hidden = F.dropout(F.relu(self.fc_in(x)), self.activation_dropout, self.training)
        out: Tensor = self.fc_out(hidden)
        return out


class Experts(nn.Module):
    """E feed-forward networks whose weights are stacked: w_in (E, D, F), w_out (E, F, D)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        E, D, F_ = config.router.num_experts, config.embed_dim, config.ffn_dim
        self.w_in = nn.Parameter(torch.empty(E, D, F_))
        self.b_in = nn.Parameter(torch.empty(E, F_))
        self.w_out = nn.Parameter(torch.empty(E, F_, D))
        self.b_out = nn.Parameter(torch.empty(E, D))
        self.activation_dropout = config.activation_dropout

    def forward(self, rows: Tensor, counts: list[int]) -> Tensor:
        """(R, D) rows sorted by expert, counts[e] of them for expert e, to (R, D)."""
        weights = (self.w_in, self.b_in, self.w_out, self.b_out)
        dropout = self.activation_dropout if self.training else 0.0
        if dropout == 0 and rows.device.type == "cpu":
            return fast_expert_ffn(rows, counts, weights)
        return expert_ffn(rows, counts, weights, dropout)
