"""Batches of many directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtmoe.data.vocabulary import EOS, PAD
from mtmoe.errors import DataError
from mtmoe.tasks.direction_dataset import DirectionData, DirectionDataset, shift_right


class Side(list):
    @property
    def sizes(self):
        return np.array([len(s) for s in self])


def side(*sentences):
    return Side(torch.tensor([*s, EOS]) for s in sentences)


def make_dataset(**settings):
    first = DirectionData(
        "aa-bb", side([10], [11, 12], [13]), side([20], [21], [22, 23]), [7, 8], 8
    )
    second = DirectionData("bb-aa", side([30, 31]), side([40]), [8, 7], 7)
    return DirectionDataset([first, second], [0, 1], **settings)


def test_a_batch_has_tags_and_padding_where_fairseq_expects_them():
    dataset = make_dataset()
    batch = dataset.collater([dataset[1], dataset[3], dataset[0]])
    assert batch["net_input"]["src_tokens"].tolist() == [
        [7, 8, 11, 12, EOS], [8, 7, 30, 31, EOS], [7, 8, 10, EOS, PAD],
    ]  # fmt: skip
    assert batch["target"].tolist() == [[21, EOS], [40, EOS], [20, EOS]]
    assert batch["net_input"]["prev_output_tokens"].tolist() == [[8, 21], [7, 40], [8, 20]]
    assert batch["direction"].tolist() == [0, 1, 0]
    assert batch["ntokens"] == 6


def test_decoder_input_of_unequal_targets():
    target = torch.tensor([[5, 6, EOS], [5, EOS, PAD]])
    assert shift_right(target, [9, 8]).tolist() == [[9, 5, 6], [8, 5, PAD]]


def test_an_epoch_of_temperature_one_sees_each_sentence_once():
    dataset = make_dataset()
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        assert sorted(dataset.ordered_indices().tolist()) == [0, 1, 2, 3]


def test_order_is_a_function_of_seed_and_epoch():
    orders = []
    for epoch in (1, 2, 1):
        dataset = make_dataset(temperature=3.0)
        dataset.set_epoch(epoch)
        orders.append(dataset.ordered_indices().tolist())
    assert orders[0] == orders[2]


@pytest.mark.parametrize("multiple", [1, 8])
def test_grouped_batches_have_one_direction_and_lose_no_sentence(multiple):
    dataset = make_dataset(is_grouped=True)
    batches = dataset.batch_by_size(dataset.ordered_indices(), 100, None, multiple)
    assert sorted(np.concatenate(batches).tolist()) == [0, 1, 2, 3]
    for batch in batches:
        assert len({int(n) >= 3 for n in batch}) == 1


@pytest.mark.parametrize("max_tokens", [12, 60, 1000])
def test_no_sentence_is_lost_to_the_batch_size_multiple(max_tokens):
    texts = [[9] * (1 + n % 9) for n in range(21)]
    data = DirectionData("aa-bb", side(*texts), side(*texts), [7], 8)
    for dataset in (DirectionDataset([data], [0]), DirectionDataset([data], [0], is_grouped=True)):
        batches = dataset.batch_by_size(dataset.ordered_indices(), max_tokens, None, 8)
        assert sorted(np.concatenate(batches).tolist()) == list(range(21))
        assert all(dataset.num_tokens_vec(b).max() * len(b) <= max_tokens for b in batches)


def test_sentences_that_are_too_long_are_named():
    dataset = make_dataset()
    kept, ignored = dataset.filter_indices_by_size(np.arange(4), (4, 10))
    assert kept.tolist() == [0, 2]
    assert ignored == [1, 3]


def test_text_of_which_nothing_fits_is_refused():
    dataset = make_dataset()
    fitting, _ = dataset.filter_indices_by_size(dataset.ordered_indices(), (1, 1))
    with pytest.raises(DataError, match="text must have sentences that are no longer than --max-"):
        dataset.batch_by_size(fitting, max_tokens=1, required_batch_size_multiple=8)
