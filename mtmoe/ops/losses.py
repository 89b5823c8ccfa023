"""Losses that keep the experts equally used."""

from __future__ import annotations

import torch
from torch import Tensor


def balance_loss(probs: Tensor, expert: Tensor) -> Tensor:
    """E * sum over experts of (mean probability * share of first choices); 1 when balanced.

    Counted before anything is dropped (Switch Transformer, arXiv:2101.03961, eq. 4; DeepSpeed).

    Args:
        probs: (T, E) float32 router probabilities of real tokens.
        expert: (T,) int64 first choices.

    Returns:
        () float32; 0 without tokens. The gradient reaches `probs` only.
    """
    T, E = probs.shape
    chosen = torch.bincount(expert, minlength=E).to(probs.dtype)
    return E * (probs.sum(0) * chosen).sum() / max(T, 1) ** 2
