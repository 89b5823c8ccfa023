"""Temperature sampling over directions."""

from __future__ import annotations

import numpy as np
import pytest

from mtmoe.data.sampling import epoch_quotas, sample_epoch


def test_temperature_one_keeps_sizes():
    assert epoch_quotas([5, 100, 0], 1.0) == [5, 100, 0]


def test_quotas_equal_their_definition():
    quotas = epoch_quotas([10, 1000], 5.0)
    weights = [10**0.2, 1000**0.2]
    assert quotas == [round(1010 * w / sum(weights)) for w in weights]


def test_high_temperature_makes_directions_alike():
    low, high = epoch_quotas([10, 1000], 1e6)
    assert low == pytest.approx(high, rel=0.01)


def test_repeated_sentences_are_spread_evenly():
    chosen = sample_epoch([4, 1000], 1e6, seed=1, epoch=1)
    counts = np.bincount(chosen[chosen < 4], minlength=4)
    assert counts.max() - counts.min() <= 1
    assert counts.sum() == epoch_quotas([4, 1000], 1e6)[0]
    rest = np.bincount(chosen[chosen >= 4])
    assert rest.max() == 1, "a direction that is sampled down repeats nothing"


def test_sample_depends_on_seed_and_epoch_only():
    first = sample_epoch([50, 60], 2.0, 1, 1)
    assert np.array_equal(first, sample_epoch([50, 60], 2.0, 1, 1))
    assert not np.array_equal(first, sample_epoch([50, 60], 2.0, 1, 2))
    assert not np.array_equal(first, sample_epoch([50, 60], 2.0, 2, 1))
