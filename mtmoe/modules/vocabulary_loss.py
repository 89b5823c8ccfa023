"""Label-smoothed cross-entropy over a vocabulary that the ranks of a tensor group share out."""

from __future__ import annotations

import torch
from torch import Tensor

from mtmoe.modules.embedding import VocabularyEmbedding
from mtmoe.ops.precision import at_least_float32
from mtmoe.parallel.collectives import max_over, sum_over


def smoothed_nll(
    logits: Tensor, target: Tensor, epsilon: float, embedding: VocabularyEmbedding
) -> tuple[Tensor, Tensor]:
    """Smoothed loss and negative log-likelihood of each target, (N,) float32 each, in nats.

    The smoothed loss gives the target 1 - epsilon and every other symbol epsilon / (V - 1)
    (Szegedy et al. 2016), as fairseq has it. No rank ever holds the logits of all symbols.

    Args:
        logits: (N, V), or those of this rank's range of symbols (`VocabularyEmbedding.project`).
        target: (N,) int64.
    """
    axis, V = embedding.axis, embedding.num_embeddings
    scores = at_least_float32(logits)
    highest = max_over(scores.max(-1, keepdim=True).values, axis)  # (N, 1)
    mass = sum_over((scores - highest).exp().sum(-1, keepdim=True), axis)
    log_mass = (mass.log() + highest).squeeze(1)  # (N,)
    nll = log_mass - _of_target(scores, target, embedding)
    if epsilon == 0:
        return nll, nll
    total = sum_over(scores.sum(-1), axis)
    smooth = V * log_mass - total  # sum over symbols of -log p
    share = epsilon / (V - 1)
    return (1 - epsilon - share) * nll + share * smooth, nll


def _of_target(scores: Tensor, target: Tensor, embedding: VocabularyEmbedding) -> Tensor:
    column = target - embedding.first_symbol
    is_here = (column >= 0) & (column < scores.shape[1])
    found = scores.gather(1, column.masked_fill(~is_here, 0).unsqueeze(1)).squeeze(1)
    return sum_over(torch.where(is_here, found, 0.0), embedding.axis)
