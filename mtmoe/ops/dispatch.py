"""Tokens to experts and back, on one rank: the torch definition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Permutation:
    """How rows in expert order relate to tokens; made by `sort_by_expert`, read by `combine`.

    R is the number of (token, choice) pairs that have a slot.
    """

    choice: Tensor  # (R,) int64: row r serves choice[r] = token * K + k
    token: Tensor  # (R,) int64: row r is token[r]
    counts: list[int]  # rows of each expert, E numbers that sum to R


def sort_by_expert(expert: Tensor, slot: Tensor, num_experts: int) -> Permutation:
    """Order the (token, choice) pairs by expert, dropped ones left out, equal ones by token.

    Args:
        expert: (T, K) int64.
        slot: (T, K) int64; negative where the choice was dropped.
    """
    K = expert.shape[1]
    flat = expert.flatten()
    kept = (slot.flatten() >= 0).nonzero().squeeze(1)  # (R,)
    choice = kept[flat[kept].argsort(stable=True)]
    counts = torch.bincount(flat[kept], minlength=num_experts)
    return Permutation(choice, choice // K, counts.tolist())


def permute(x: Tensor, permutation: Permutation) -> Tensor:
    """(T, D) tokens to (R, D) rows in the order of experts."""
    return x.index_select(0, permutation.token)


def combine(rows: Tensor, weight: Tensor, permutation: Permutation) -> Tensor:
    """Sum over each token's choices of weight * row; a token without any row gives 0.

    Args:
        rows: (R, D) outputs of the experts.
        weight: (T, K) share of each choice.

    Returns:
        (T, D) in the dtype of `rows`.
    """
    scale = weight.flatten().index_select(0, permutation.choice).to(rows.dtype)
    scaled = rows * scale.unsqueeze(1)
    return rows.new_zeros(weight.shape[0], rows.shape[1]).index_add(0, permutation.token, scaled)
