"""How often each direction is seen in an epoch, and which of its sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def epoch_quotas(sizes: Sequence[int], temperature: float) -> list[int]:
    """Sentences of each direction in one epoch, which is as long as all directions together.

    A direction's share is size ** (1 / temperature) over the sum of these (Arivazhagan et al. 2019,
    arXiv:1907.05019): at 1 every sentence once, towards infinity all directions alike.
    """
    if temperature == 1:
        return list(sizes)
    weights = np.array(sizes, dtype=np.float64) ** (1 / temperature)
    exact = weights / weights.sum() * sum(sizes)
    return [max(1, round(n)) if size else 0 for n, size in zip(exact.tolist(), sizes, strict=True)]


def sample_epoch(
    sizes: Sequence[int], temperature: float, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Indices into the directions laid end to end: a pure function of its arguments.

    A direction that is to be seen r times its size gives each sentence floor(r) or ceil(r) times.
    """
    generator = np.random.default_rng([seed, epoch])
    starts = np.cumsum([0, *sizes])[:-1]
    parts = []
    for start, size, quota in zip(starts, sizes, epoch_quotas(sizes, temperature), strict=True):
        rounds = -(-quota // size) if size else 0
        permutations = [generator.permutation(size) for _ in range(rounds)]
        parts.append(start + np.concatenate([*permutations, np.empty(0, np.int64)])[:quota])
    return np.concatenate([*parts, np.empty(0)]).astype(np.int64)
