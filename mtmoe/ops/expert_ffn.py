"""The feed-forward networks of all experts, over rows that are sorted by expert: the definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from mtmoe.config import Activation
from mtmoe.ops.expert_linear import expert_linear


class ExpertWeights(NamedTuple):
    """The stacked weights of E experts."""

    w_in: Tensor  # (E, D, F)
    b_in: Tensor  # (E, F)
    w_out: Tensor  # (E, F, D)
    b_out: Tensor  # (E, D)
    w_gate: Tensor | None = None  # (E, D, F), of SwiGLU only

    def map(self, function: Callable[[Tensor], Tensor]) -> ExpertWeights:
        """The same of each weight that is there."""
        return ExpertWeights._make(w if w is None else function(w) for w in self)


def expert_ffn(
    rows: Tensor,
    counts: Tensor,
    weights: ExpertWeights,
    activation: Activation = Activation.relu,
    dropout: float = 0.0,
) -> Tensor:
    """Linear, activation, dropout, linear, with the weights of each row's expert.

    Args:
        rows: (R, D), the rows of expert 0 first.
        counts: (E,) int64 that sum to R.
        dropout: probability of a hidden number to be 0.

    Returns:
        (R, D)
    """
    sizes = counts.tolist()
    hidden = expert_linear(rows, sizes, weights.w_in, weights.b_in)  # (R, F)
    gate = None if weights.w_gate is None else expert_linear(rows, sizes, weights.w_gate)
    hidden = F.dropout(activate(hidden, gate, activation), dropout)
    return expert_linear(hidden, sizes, weights.w_out, weights.b_out)


def activate(hidden: Tensor, gate: Tensor | None, activation: Activation) -> Tensor:
    """ReLU, GELU (exact, by erf), or SwiGLU: silu(gate) * hidden (Shazeer 2020, arXiv:2002.05202).

    Args:
        hidden: (..., F) outputs of the first linear map.
        gate: (..., F) outputs of the gate's, for SwiGLU; else None.
    """
    if activation is Activation.swiglu:
        assert gate is not None, "SwiGLU has a third matrix"
        return F.silu(gate) * hidden
    return F.relu(hidden) if activation is Activation.relu else F.gelu(hidden)
