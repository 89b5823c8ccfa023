from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtmoe.inference.search_config import SearchConfig
from mtmoe.inference.shares import SHORT_SENTENCE, share_out

LENGTHS = st.lists(st.integers(1, 300), max_size=120)


@given(LENGTHS, st.integers(1, 4), st.integers(50, 5000))
def test_each_sentence_is_in_one_batch_of_at_most_so_many_tokens(
    lengths: list[int], num_workers: int, max_tokens: int
) -> None:
    batches = share_out(lengths, SearchConfig(max_tokens=max_tokens), num_workers)
    assert sorted(n for batch in batches for n in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[n] for n in batch)
        tokens = len(batch) * max(longest, SHORT_SENTENCE)
        assert tokens <= max_tokens or len(batch) == 1


@pytest.mark.parametrize("num_workers", [2, 3, 8])
def test_few_batches_cost_about_the_same(num_workers: int) -> None:
    draw = random.Random(num_workers)
    lengths = [round(20 * draw.lognormvariate(0, 0.6)) + 1 for _ in range(64)]
    batches = share_out(lengths, SearchConfig(max_tokens=10_000), num_workers)
    assert len(batches) == num_workers
    costs = [sum(max(lengths[n], SHORT_SENTENCE) for n in batch) for batch in batches]
    assert max(costs) < 1.5 * min(costs), costs


def test_outputs_of_one_length_share_out_sentences_evenly() -> None:
    lengths = [*range(10, 50)]
    config = SearchConfig(min_length=50, max_length=50, max_tokens=10_000)
    first, second = share_out(lengths, config, 2)
    assert abs(len(first) - len(second)) <= 10  # the encoder's part differs
    assert min(lengths[n] for n in first) > max(lengths[n] for n in second)


def test_little_work_and_one_worker_are_not_shared_out() -> None:
    assert len(share_out([20] * 10, SearchConfig(), 4)) == 1
    assert len(share_out([20] * 100, SearchConfig(), 1)) == 1
