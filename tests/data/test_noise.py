"""Each noise against a loop that anyone can check, on ten thousand sentences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtmoe.config import NoiseConfig
from mtmoe.data import noise
from mtmoe.data.schedule import Schedule

MASK, FIRST, PIECES, V = 100, 4, 60, 101
ENDS = {10, 11}
IS_END = np.array([symbol in ENDS for symbol in range(V)])
FILLER = noise.Filler(MASK, FIRST, PIECES, 0.25)
sentences = st.binary(max_size=40).map(lambda text: [FIRST + byte % PIECES for byte in text])
five = st.lists(sentences, min_size=5, max_size=5)
ratios = st.floats(0, 1)
keys = st.tuples(*[st.integers(0, 2**31)] * 3)
many = settings(max_examples=2000, deadline=None)  # of five sentences each


def array(ids):
    return np.array(ids, dtype=np.int64)


def twins(key, index=0):
    key = (*key[:2], key[2] + index)
    return noise.noise_generator(*key), noise.noise_generator(*key)


def filler_loop(count, draws):
    chances = draws.random(count).tolist()
    pieces = draws.integers(PIECES, size=count).tolist()
    return [FIRST + piece if c < 0.25 else MASK for c, piece in zip(chances, pieces, strict=True)]


def infill_loop(ids, ratio, mean, draws):
    wanted = math.floor(ratio * len(ids) + 0.5)
    lengths, total = [], 0
    while total < wanted:
        length = draws.poisson(mean)
        if total + length > wanted:
            length = wanted - total
        lengths.append(length)
        total += length
    places = len(ids) - wanted + len(lengths)
    chosen = set(draws.choice(places, len(lengths), replace=False).tolist())
    fillers = filler_loop(len(lengths), draws)
    expected, source, span = [], 0, 0
    for place in range(places):
        if place in chosen:
            expected.append(fillers[span])
            source += lengths[span]
            span += 1
        else:
            expected.append(ids[source])
            source += 1
    assert source == len(ids)
    return expected


@many
@given(five, ratios, st.floats(1, 6), keys)
def test_infilling_equals_its_definition(texts, ratio, mean, key):
    for index, ids in enumerate(texts):
        ours, draws = twins(key, index)
        expected = infill_loop(ids, ratio, mean, draws)
        assert noise.infill_spans(array(ids), ratio, mean, FILLER, ours).tolist() == expected


@many
@given(five, ratios, keys)
def test_masking_equals_its_definition(texts, ratio, key):
    for index, ids in enumerate(texts):
        ours, draws = twins(key, index)
        count = math.floor(ratio * len(ids) + 0.5)
        chosen = draws.choice(len(ids), count, replace=False).tolist()
        expected = list(ids)
        for place, filler in zip(chosen, filler_loop(count, draws), strict=True):
            expected[place] = filler
        assert noise.mask_tokens(array(ids), ratio, FILLER, ours).tolist() == expected


@many
@given(five, st.floats(0, 1), keys)
def test_random_tokens_equal_their_definition(texts, ratio, key):
    for index, ids in enumerate(texts):
        ours, draws = twins(key, index)
        count = len(ids)
        drawn = noise.Filler(MASK, FIRST, PIECES, ratio).draw(count, ours).tolist()
        chances, pieces = draws.random(count), draws.integers(PIECES, size=count)
        for place in range(count):
            assert drawn[place] == (FIRST + pieces[place] if chances[place] < ratio else MASK)


@many
@given(five, st.floats(0, 0.99), keys)
def test_deletion_equals_its_definition(texts, ratio, key):
    for index, ids in enumerate(texts):
        ours, draws = twins(key, index)
        count = min(math.floor(ratio * len(ids) + 0.5), max(len(ids) - 1, 0))
        gone = set(draws.choice(len(ids), count, replace=False).tolist())
        expected = [token for place, token in enumerate(ids) if place not in gone]
        assert noise.delete_tokens(array(ids), ratio, ours).tolist() == expected


@many
@given(five, keys)
def test_permutation_equals_its_definition(texts, key):
    for index, ids in enumerate(texts):
        ours, draws = twins(key, index)
        parts = [[]]
        for place, token in enumerate(ids):
            parts[-1].append(token)
            if token in ENDS and place < len(ids) - 1:
                parts.append([])
        expected = [token for number in draws.permutation(len(parts)) for token in parts[number]]
        assert noise.permute_sentences(array(ids), IS_END, ours).tolist() == expected


def make(**settings_):
    ratio = Schedule(((0, 0.0), (100, 0.5)))
    return noise.Noise(NoiseConfig(**settings_), ratio, FILLER, IS_END, seed=7)


@given(sentences, st.integers(0, 9), st.integers(0, 999))
def test_noise_is_a_function_of_seed_epoch_and_index(ids, epoch, index):
    every = make(deletion_ratio=0.1, permutation=0.5)
    first = every.apply(array(ids), epoch, index, 50).tolist()
    noise.noise_generator(0, 0, 0).random(100)  # other draws do not matter
    assert every.apply(array(ids), epoch, index, 50).tolist() == first


@pytest.mark.parametrize("change", [(2, 5, 50), (1, 6, 50)])
def test_another_epoch_or_index_gives_other_noise(change):
    ids = np.arange(FIRST, FIRST + 40)
    assert make().apply(ids, 1, 5, 50).tolist() != make().apply(ids, *change).tolist()


def test_ratio_grows_over_updates():
    ids = np.arange(FIRST, FIRST + 40)
    plain = noise.Filler(MASK, FIRST, PIECES, 0.0)
    ratio = Schedule(((0, 0.0), (100, 0.5)))
    masking = noise.Noise(NoiseConfig(span_length=0), ratio, plain, IS_END, 7)
    counts = [(masking.apply(ids, 1, 1, update) == MASK).sum() for update in (0, 50, 100, 500)]
    assert counts == [0, 10, 20, 20]


def test_mean_length_of_spans_is_that_of_poisson():
    generator = noise.noise_generator(1, 1, 1)
    lengths = noise.draw_lengths(100_000, 3.5, generator)
    assert np.mean(lengths) == pytest.approx(3.5, rel=0.02)
    assert np.var(lengths) == pytest.approx(3.5, rel=0.04)


def test_sentences_end_at_marks_of_many_scripts():
    symbols = ("a", "a.", "。", "b؟", "1.5")
    assert noise.ends_sentence(symbols).tolist() == [False, True, True, True, False]
