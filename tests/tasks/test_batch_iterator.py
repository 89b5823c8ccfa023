"""A place in an epoch holds on any number of ranks."""

from __future__ import annotations

import pytest
import torch
from fairseq.data import ListDataset
from fairseq.data.iterators import EpochBatchIterator

from mtmoe.tasks.batch_iterator import AnyRanksIterator

NUM_BATCHES = 12
pytestmark = pytest.mark.filterwarnings("ignore:.pin_memory. argument")  # fairseq asks for it


def make(num_shards, shard):
    dataset = ListDataset([torch.tensor(n) for n in range(NUM_BATCHES)], [1] * NUM_BATCHES)
    batches = [[n] for n in range(NUM_BATCHES)]
    iterator = EpochBatchIterator(
        dataset, lambda rows: int(rows[0]), batches, num_shards=num_shards, shard_id=shard
    )
    return AnyRanksIterator.of(iterator)


def read_on(num_shards, state):
    """What all ranks read from `state` to the end, in their order."""
    parts = []
    for shard in range(num_shards):
        iterator = make(num_shards, shard)
        iterator.load_state_dict(state)
        parts.append(list(iterator.next_epoch_itr(shuffle=False)))
    return [batch for turn in zip(*parts, strict=True) for batch in turn]


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 2), (2, 1), (2, 4), (4, 2)])
@pytest.mark.parametrize("num_read", [4, 8])
def test_what_others_have_read_is_not_read_again(before, after, num_read):
    iterator = make(before, 0)
    batches = iterator.next_epoch_itr(shuffle=False)
    for _ in range(num_read // before):
        next(batches)
    found = read_on(after, iterator.state_dict())
    assert found == list(range(num_read, NUM_BATCHES))


def test_where_they_do_not_divide_the_last_ones_are_read_again():
    iterator = make(1, 0)
    batches = iterator.next_epoch_itr(shuffle=False)
    for _ in range(5):
        next(batches)
    assert read_on(2, iterator.state_dict()) == list(range(4, NUM_BATCHES))
