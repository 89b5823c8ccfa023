"""Tokens to experts and back, on one rank: the torch definition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtmoe.ops.precision import at_least_float32
from mtmoe.ops.routing import DROPPED


@dataclass(frozen=True)
class Permutation:
    """How rows in expert order relate to tokens; made by `sort_by_expert`, read by the rest.

    The rows that experts compute are the first `counts.sum()` of the R; a backend that does not
    wait for the device leaves unused rows behind them, which belong to choices without a slot.
    """

    choice: Tensor  # (R,) int64: row r serves choice[r] = token * K + k
    row: Tensor  # (T, K) int64: the row of each choice, or DROPPED
    counts: Tensor  # (E,) int64 rows of each expert

    @property
    def token(self) -> Tensor:
        """(R,) int64: row r is token[r]."""
        return self.choice // self.row.shape[1]


def sort_by_expert(expert: Tensor, slot: Tensor, num_experts: int) -> Permutation:
    """Order the (token, choice) pairs by expert, equal ones by token; those without a slot are out.

    Args:
        expert: (T, K) int64.
        slot: (T, K) int64; negative where the choice has no slot.
    """
    key = expert.masked_fill(slot < 0, num_experts).flatten()
    counts = torch.bincount(key, minlength=num_experts + 1)[:num_experts]
    choice = key.argsort(stable=True)[: int(counts.sum())]
    row = torch.full_like(key, DROPPED)
    row[choice] = torch.arange(choice.shape[0], device=key.device)
    return Permutation(choice, row.view(expert.shape), counts)


def permute(x: Tensor, permutation: Permutation) -> Tensor:
    """(T, D) tokens to (R, D) rows in the order of experts."""
    return x.index_select(0, permutation.token)


def combine(rows: Tensor, weight: Tensor, permutation: Permutation) -> Tensor:
    """Sum over each token's choices of weight * row; a token without any row gives 0.

    Args:
        rows: (R, D) outputs of the experts.
        weight: (T, K) float32 share of each choice.

    Returns:
        (T, D) in the dtype of `rows`; summed in float32 or better.
    """
    scale = weight.flatten().index_select(0, permutation.choice).unsqueeze(1)  # (R, 1)
    scaled = at_least_float32(rows) * scale
    total = scaled.new_zeros(weight.shape[0], rows.shape[1])
    return total.index_add(0, permutation.token, scaled).to(rows.dtype)
