"""The best of very many scores, by one pass over them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mtmoe.ops import native

BLOCK = 64  # symbols that are looked at together


def log_sums(logits: Tensor) -> Tensor:
    """log of the sum of exp(logits), (B, K, V) float32, over the symbols: (B, K).

    Taken from the few best logits, it makes them log probabilities; taken from all, it would cost
    another pass over them.
    """
    library = native.library() if logits.device.type == "cpu" else None
    if library is None:
        return logits.logsumexp(2)
    logits = logits.contiguous()
    found = logits.new_empty(logits.shape[:2])
    V = logits.shape[2]
    library.log_sums(logits.data_ptr(), found.numel(), V, found.data_ptr())
    return found


def best_of(scores: Tensor, before: Tensor, wanted: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best continuations of the K hypotheses of each sentence.

    The N best of all lie in the N blocks whose maxima are the largest: one pass finds these maxima,
    and only so many blocks are sorted. `torch.topk` over all symbols takes longer than the whole
    network does for them.

    Args:
        scores: (B, K, V) float32; -inf where a symbol must not come.
        before: (B, K) float32, added to the scores of each hypothesis.
        wanted: N.

    Returns:
        (B, N') score, hypothesis and symbol, best first, N' = min(N, all); a symbol of V or above
        has the score -inf.
    """
    B, K, V = scores.shape
    if V % BLOCK:
        scores = F.pad(scores, (0, -V % BLOCK), value=float("-inf"))
    per_hypothesis = scores.shape[2] // BLOCK
    blocks = scores.view(B, K, per_hypothesis, BLOCK)
    maxima = (blocks.amax(3) + before.unsqueeze(2)).flatten(1)  # (B, K * V / BLOCK)
    block = maxima.topk(min(wanted, maxima.shape[1]), dim=1).indices
    inside = blocks.flatten(1, 2).gather(1, block.unsqueeze(2).expand(-1, -1, BLOCK))
    parent = block // per_hypothesis  # (B, N)
    totals = (inside + before.gather(1, parent).unsqueeze(2)).flatten(1)
    score, place = totals.topk(min(wanted, totals.shape[1]), dim=1)
    chosen = place // BLOCK
    symbol = block.gather(1, chosen) % per_hypothesis * BLOCK + place % BLOCK
    return score, parent.gather(1, chosen), symbol
