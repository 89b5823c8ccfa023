"""Losses of routers: equal use, small scores, a budget of experts."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from mtmoe.ops.routing import count_numbers


def _alone(x: Tensor) -> Tensor:
    return x


def balance_loss(
    probs: Tensor,
    expert: Tensor,
    sum_ranks: Callable[[Tensor], Tensor] = _alone,
    num_tokens: int | None = None,
) -> Tensor:
    """E * sum over experts of (mean probability * share of first choices); 1 when balanced.

    Counted before anything is dropped (Switch Transformer, arXiv:2101.03961, eq. 4; DeepSpeed).

    Args:
        probs: (T, E) float32 router probabilities of real tokens.
        expert: (T,) int64 first choices.
        sum_ranks: the sum over the ranks that have shared out the tokens, if any have.
        num_tokens: of all these ranks; T if None.

    Returns:
        () float32; 0 without tokens. The gradient reaches `probs` only.
    """
    T, E = probs.shape
    T = T if num_tokens is None else num_tokens
    chosen = sum_ranks(count_numbers(expert, E)).to(probs.dtype)
    return E * (sum_ranks(probs.sum(0)) * chosen).sum() / max(T, 1) ** 2


def z_loss(
    scores: Tensor,
    sum_ranks: Callable[[Tensor], Tensor] = _alone,
    num_tokens: int | None = None,
) -> Tensor:
    """Mean square of log(sum(exp(score))): keeps scores small (ST-MoE, arXiv:2202.08906, eq. 5).

    Args:
        scores: (T, E) float32 of real tokens, before the softmax.
        sum_ranks: as in `balance_loss`, as `num_tokens`.

    Returns:
        () float32; 0 without tokens.
    """
    T = scores.shape[0] if num_tokens is None else num_tokens
    return sum_ranks(scores.logsumexp(-1).square().sum()) / max(T, 1)


def budget_loss(gate: Tensor, budget: float) -> Tensor:
    """|mean(gate) - budget|: how many tokens use the experts (arXiv:2212.07571, eq. 4).

    Args:
        gate: (T,) float32 in [0, 1].

    Returns:
        () float32; 0 without tokens.
    """
    T = gate.shape[0]
    return (gate.sum() - budget * T).abs() / max(T, 1)
