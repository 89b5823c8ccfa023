"""Sentences as batches for several workers: none waits long for the others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from mtmoe.data.batching import batch_by_tokens
from mtmoe.inference.search_config import SearchConfig

SMALL_BATCH = 500  # tokens that are not worth spreading over cores
SHORT_SENTENCE = 16  # shorter ones count as this long in a batch: their output may be longer
BATCHES_OF_WORKER = 3  # with more each, whoever is free takes the next: nobody waits long
ENCODER_SHARE = 0.5  # what a source token costs, of what an output token does; rough


def share_out(lengths: Sequence[int], config: SearchConfig, num_workers: int) -> list[list[int]]:
    """Indices in batches of like lengths, longest first, of at most `config.max_tokens` tokens.

    Few batches become a multiple of `num_workers` that cost about the same.

    Args:
        lengths: source tokens of each sentence.
    """
    counted = [max(length, SHORT_SENTENCE, config.min_length) for length in lengths]
    batches = list(batch_by_tokens(counted, config.max_tokens))
    is_small = sum(counted) <= SMALL_BATCH
    if num_workers == 1 or is_small or len(batches) > BATCHES_OF_WORKER * num_workers:
        return batches
    order = sorted(range(len(lengths)), key=lambda n: (-lengths[n], n))
    costs = [_steps(counted[n], config) + ENCODER_SHARE * lengths[n] for n in order]
    for num_groups in range(num_workers, len(order), num_workers):
        groups = _cut(order, costs, num_groups)
        if all(counted[group[0]] * len(group) <= config.max_tokens for group in groups):
            return groups
    return batches


def _steps(length: int, config: SearchConfig) -> int:
    """Output tokens to expect."""
    return min(length, config.max_length) if config.max_length else length


def _cut(order: Sequence[int], costs: Sequence[float], num_groups: int) -> list[list[int]]:
    """`order` in `num_groups` pieces, or fewer, whose sums of costs are about equal."""
    share = sum(costs) / num_groups
    groups: list[list[int]] = [[] for _ in range(num_groups)]
    for index, cost, end in zip(order, costs, accumulate(costs), strict=True):
        groups[min(int((end - cost / 2) / share), num_groups - 1)].append(index)
    return [group for group in groups if group]
