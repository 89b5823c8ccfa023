"""Random orders of any size that take no memory: the place of one element is computed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6
Words = NDArray[np.uint64]


def permuted(positions: NDArray[np.int64], size: int, key: int) -> NDArray[np.int64]:
    """Where a pseudo-random permutation of `size` elements takes `positions`.

    A Feistel network (Luby and Rackoff 1988) permutes the next even power of two; what falls
    outside is sent through again until it is inside.

    Args:
        positions: (n,) int64, each in [0, size).
        key: any whole number from 0; chooses the permutation.

    Returns:
        (n,) int64, each in [0, size).
    """
    half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    result = positions.astype(np.uint64)
    outside = np.ones(len(result), dtype=bool)
    while outside.any():
        result[outside] = _feistel(result[outside], half, key)
        outside = result >= size
    return result.astype(np.int64)


def _feistel(words: Words, half: np.uint64, key: int) -> Words:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = words >> half, words & mask
    for number in range(ROUNDS):
        salt = (key * 0x9E3779B97F4A7C15 + number * 0xD1B54A32D192ED03) % 2**64
        left, right = right, left ^ (_mix(right + np.uint64(salt)) & mask)
    return (left << half) | right


def _mix(words: Words) -> Words:
    """SplitMix64's finaliser (Steele et al. 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)))
