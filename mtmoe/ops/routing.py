"""Which experts a token gets, and which slot of an expert; its random numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

DROPPED = -1  # wanted a slot, but the expert was full
SKIPPED = -2  # wanted none


def expert_capacity(
    factor: float, top_k: int, num_tokens: int, num_experts: int, minimum: int = 1
) -> int:
    """Slots per expert: factor * top_k * tokens / experts, rounded up (GShard), or the minimum."""
    return max(minimum, math.ceil(factor * top_k * num_tokens / num_experts))


def choose_experts(probs: Tensor, top_k: int, bias: Tensor | None = None) -> Tensor:
    """Each token takes the `top_k` experts of the highest probability (GShard, arXiv:2006.16668).

    Args:
        probs: (T, E).
        bias: (E,) added for the choice only, never to the probability that becomes the weight
            (balance without a loss: arXiv:2408.15664, DeepSeek-V3).

    Returns:
        (T, K) int64 numbers of the experts, strongest choice first.
    """
    biased = probs.detach() if bias is None else probs.detach() + bias
    if top_k == 1:  # on a CPU, argmax takes five times as long as max
        return biased.max(-1, keepdim=True).indices
    return biased.topk(top_k).indices


def count_numbers(numbers: Tensor, size: int) -> Tensor:
    """(size,) int64: how often 0, 1, ... occur among `numbers`, (N,) int64, all below `size`.

    `torch.bincount`, but a GPU is not waited for.
    """
    if not numbers.is_cuda:
        return torch.bincount(numbers, minlength=size)
    one = torch.ones((), dtype=torch.int64, device=numbers.device)
    return numbers.new_zeros(size).scatter_add_(0, numbers, one.expand_as(numbers))


def choose_tokens(probs: Tensor, sentence: Tensor, tokens_per_expert: Tensor) -> Tensor:
    """Each expert takes its best tokens of each sentence (Zhou et al. 2022, arXiv:2202.09368).

    The paper chooses within a batch; within a sentence, a translation does not depend on others.
    Of equal probabilities, the earlier token is taken.

    Args:
        probs: (T, E).
        sentence: (T,) int64 number of each token's sentence, ascending, below B.
        tokens_per_expert: (B,) int64 tokens that each expert takes of a sentence.

    Returns:
        (T, E) bool, True where the expert takes the token.
    """
    T, B = probs.shape[0], tokens_per_expert.shape[0]
    length = torch.bincount(sentence, minlength=B)
    start = length.cumsum(0) - length
    best_first = probs.argsort(dim=0, descending=True, stable=True)  # (T, E) over all sentences
    by_sentence = sentence[best_first].argsort(dim=0, stable=True)
    order = best_first.gather(0, by_sentence)  # sentence by sentence, best token first
    rank = torch.arange(T, device=probs.device) - start[sentence]  # (T,) within the sentence
    is_taken = (rank < tokens_per_expert[sentence]).unsqueeze(1).expand_as(order)
    return torch.zeros_like(order, dtype=torch.bool).scatter(0, order, is_taken)


def sample_choices(weight: Tensor, noise: Tensor) -> Tensor:
    """Take the first choice always, choice k with probability min(1, K * weight) (GShard, sec. 3).

    Args:
        weight: (T, K) that sum to 1.
        noise: (T, K) uniform in [0, 1).

    Returns:
        (T, K) bool
    """
    is_taken = noise < weight.shape[1] * weight
    is_taken[:, 0] = True
    return is_taken


def assign_slots(
    expert: Tensor, num_experts: int, capacity: int, priority: Tensor | None = None
) -> Tensor:
    """Give each (token, choice) a slot of its expert, first come, first served.

    All first choices are placed before any second choice. Within one choice, tokens come in order
    of `priority`, or of the sequence if it is None. Random priorities make this Random Token
    Selection (Kim et al. 2021, arXiv:2109.10465); without them a full expert always turns away
    the end of the batch.

    Args:
        expert: (T, K) int64, each in [0, num_experts).
        priority: (T,) float; the highest is placed first.

    Returns:
        (T, K) int64, each in [0, capacity), or `DROPPED` where the expert was full.
    """
    T, K = expert.shape
    if priority is None:
        order = torch.arange(T, device=expert.device)
    else:
        order = priority.argsort(descending=True, stable=True)
    arrivals = F.one_hot(expert[order].t().flatten(), num_experts)  # (K * T, E)
    place = ((arrivals.cumsum(0) - 1) * arrivals).sum(1)  # (K * T,) in its expert's queue
    slot = torch.empty_like(expert)
    slot[order] = place.view(K, T).t()
    return slot.masked_fill(slot >= capacity, DROPPED)


def mark_skipped(slot: Tensor, is_wanted: Tensor) -> Tensor:
    """`slot` with `SKIPPED` where no slot was wanted, (T, K)."""
    return slot.masked_fill(~is_wanted, SKIPPED)


def update_choice_bias(bias: Tensor, tokens: Tensor, rate: float) -> None:
    """Raise the bias of experts with less than the mean load by `rate`, lower the others, in place.

    Balance without a loss (Wang et al. 2024, arXiv:2408.15664; DeepSeek-V3).

    Args:
        bias: (E,) float32.
        tokens: (E,) choices of each expert in the whole update, before dropping.
    """
    load = tokens.to(bias.dtype)
    bias += rate * (load.mean() - load).sign()


@dataclass(frozen=True)
class RouterKey:
    """What the random numbers of one forward pass depend on, beside the layer.

    Recomputation and the ranks of a tensor group have equal keys and draw the same numbers.
    """

    update: int  # from (seed, update): equal on all ranks
    share: int  # from (seed, update, micro-batch over all data ranks)

    @staticmethod
    def of(seed: int, update: int, micro_batch: int) -> RouterKey:
        """The key of a micro-batch; `micro_batch` counts those of all data ranks in an update."""
        return RouterKey(mix_seed(seed, update), mix_seed(seed, update, micro_batch))


def layer_generator(seed: int, layer: int, device: torch.device) -> torch.Generator:
    """The random numbers of one router in one forward: equal whenever (seed, layer) are equal."""
    return torch.Generator(device).manual_seed(mix_seed(seed, layer))


def mix_seed(*parts: int) -> int:
    """Fold integers into one seed of 63 bits (the mixing steps of splitmix64)."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
