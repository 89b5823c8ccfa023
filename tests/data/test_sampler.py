"""The sequence of batches: shares as asked, resumable, each sentence once a pass."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtmoe.config import BatchMix, SamplingConfig
from mtmoe.data.mixture import Mixture, Stream, bound_shares
from mtmoe.data.permutation import permuted
from mtmoe.data.sampler import Budget, StreamSampler, deal
from mtmoe.errors import ConfigError, DataError

SIZES = {"aa-bb": 900, "bb-aa": 900, "aa-cc": 60, "denoising:aa": 300, "title:aa-bb": 20}
MIX = "translation=6,denoising=3,title=1"
MIXES = list(BatchMix)


def make_mixture(temperature=5.0, **options):
    options = {"task_mix": MIX, **options}
    return Mixture([Stream(*s) for s in SIZES.items()], SamplingConfig(**options), temperature)


def make(max_length=(30, 30), seed=3, **options):
    draw = np.random.default_rng(0)
    lengths = [tuple(draw.integers(1, 30, (2, n), np.int32)) for n in SIZES.values()]
    budget = Budget(200, None, max_length)
    return StreamSampler(make_mixture(**options), lengths, budget, seed)


def counts_of(batches):
    streams = np.concatenate([batch[:, 0] for batch in batches])
    return np.bincount(streams, minlength=len(SIZES))


@pytest.mark.parametrize("mix", MIXES)
def test_shares_over_ten_thousand_batches_are_those_asked_for(mix):
    sampler = make(batch_mix=mix, direction_shares="aa-cc=0.05")
    batches, state = sampler.plan(sampler.start(), range(2500), 4)
    counts = counts_of(batches)
    assert len(batches) == 10_000
    assert state["seen"] == counts.tolist()
    asked = sampler.mixture.shares(0)
    assert asked[2] == pytest.approx(0.6 * 0.05)
    np.testing.assert_allclose(counts / counts.sum(), asked, rtol=0.01)


@pytest.mark.parametrize("mix", MIXES)
def test_shares_follow_schedules(mix):
    sampler = make(batch_mix=mix, task_mix="translation=1,denoising=0:0/400:1", epoch_updates=9)
    batches, _ = sampler.plan(sampler.start(), range(800), 4)
    counts = counts_of(batches[:1600])
    expected = np.mean([sampler.mixture.shares(u)[3] for u in range(400)])
    assert counts[3] / counts.sum() == pytest.approx(expected, rel=0.05)
    late = counts_of(batches[1600:])
    assert late[3] / late.sum() == pytest.approx(0.5, rel=0.05)
    assert late[4] == 0, "a task that is not in the mix is not seen"


@pytest.mark.parametrize("mix", MIXES)
def test_a_direction_joins_at_its_update(mix):
    sampler = make(batch_mix=mix, join_updates="bb-aa=50")
    batches, _ = sampler.plan(sampler.start(), range(100), 2)
    assert counts_of(batches[:100])[1] == 0
    assert counts_of(batches[100:])[1] > 0
    if mix is BatchMix.single:
        assert counts_of(batches[100:110])[1] > 0


@pytest.mark.parametrize("mix", MIXES)
def test_the_sequence_goes_on_from_a_state_that_was_saved(mix):
    whole, _ = make(batch_mix=mix).plan(make(batch_mix=mix).start(), range(60), 4)
    parts, state = [], make(batch_mix=mix).start()
    for updates in (range(7), range(7, 31), range(31, 60)):
        state = json.loads(json.dumps(state))
        found, state = make(batch_mix=mix).plan(state, updates, 4)
        parts += found
    assert len(parts) == len(whole)
    for ours, theirs in zip(parts, whole, strict=True):
        assert np.array_equal(ours, theirs)


def test_a_plan_is_a_function_of_the_seed():
    plans = [make(seed=s).plan(make().start(), range(5), 1)[0] for s in (3, 3, 4)]
    same = [all(map(np.array_equal, plans[0], plan)) for plan in plans]
    assert same == [True, True, False]


@pytest.mark.parametrize("mix", MIXES)
def test_each_pass_sees_each_sentence_once_and_batches_keep_the_budget(mix):
    sampler = make(batch_mix=mix)
    batches, _ = sampler.plan(sampler.start(), range(800), 1)
    rows = np.concatenate(batches)
    assert len(np.unique(rows[:, :3], axis=0)) == len(rows)
    for stream, size in enumerate(SIZES.values()):
        first = rows[(rows[:, 0] == stream) & (rows[:, 2] == 0), 1]
        is_over = rows[rows[:, 0] == stream, 2].max() > 2
        assert not is_over or len(first) == size
    for batch in batches:
        assert sampler._longest(batch).max() * len(batch) <= 200
        assert mix is BatchMix.mixed or len(set(batch[:, 0])) == 1


def test_sentences_that_do_not_fit_are_left_out_and_counted():
    sampler = make(max_length=(10, 20))
    batches, _ = sampler.plan(sampler.start(), range(200), 1)
    for stream, row, *_ in np.concatenate(batches):
        source, target = (side[row] for side in sampler.lengths[stream])
        assert source <= 10
        assert target <= 20
    assert sampler.num_left_out > 0
    with pytest.raises(DataError, match=r"aa-bb must have sentences of at most \(0, 9\) tokens"):
        make(max_length=(0, 9))


def test_within_a_task_shares_follow_the_temperature():
    shares = make_mixture(temperature=5.0).shares(0)
    weights = [size ** (1 / 5) for size in (900, 900, 60)]
    np.testing.assert_allclose(shares[:3], [0.6 * w / sum(weights) for w in weights])
    np.testing.assert_allclose(shares[3:], [0.3, 0.1])


def test_losses_of_validation_move_shares():
    mixture = make_mixture(loss_power=2.0, temperature=1e9)
    shares = mixture.shares(0, {"aa-bb": 1.0, "bb-aa": 2.0, "aa-cc": 3.0})
    expected = [0.6 * loss**2 / (1 + 4 + 9) for loss in (1, 2, 3)]
    np.testing.assert_allclose(shares[:3], expected, rtol=1e-6)
    assert make_mixture(loss_power=2.0).shares(0).tolist() == make_mixture().shares(0).tolist()


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=30), st.floats(0, 0.2), st.floats(0.2, 1))
@settings(deadline=None)
def test_bounded_shares_keep_bounds_and_proportions(raw, floor, cap):
    shares = np.array(raw) / sum(raw)
    bounded = bound_shares(shares, floor, cap)
    assert bounded.sum() == pytest.approx(1)
    if floor * len(raw) < 1 < cap * len(raw):
        assert bounded.min() >= floor - 1e-6
        assert bounded.max() <= cap + 1e-6
        is_free = (bounded > floor * (1 + 1e-6)) & (bounded < cap * (1 - 1e-6))
        factors = bounded[is_free] / shares[is_free]
        assert np.allclose(factors, factors[:1])


@given(st.integers(1, 600), st.integers(0, 2**40))
@settings(deadline=None)
def test_permutation_hits_each_place_once(size, key):
    assert sorted(permuted(np.arange(size), size, key)) == list(range(size))


def test_permutations_of_other_keys_differ():
    first, second = (permuted(np.arange(1000), 1000, key) for key in (1, 2))
    assert (first == second).mean() < 0.02
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.1


def test_dealing_gives_all_and_remembers_the_rest():
    counts, owed = deal(np.array([1.6, 2.3, 0.1]), np.array([True, True, False]), 4)
    assert counts.tolist() == [2, 2, 0]
    np.testing.assert_allclose(owed, [-0.4, 0.3, 0.1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task_mix": "translation=x"}, "task_mix must be a number"),
        ({"task_mix": "translation=5:1/5:2"}, "increasing updates"),
        ({"task_mix": "translation=-1"}, "0 or above"),
        ({"task_mix": "dreaming"}, "task_mix must be among denoising, title, translation, but is"),
        ({"task_mix": "translation=0"}, "must have a share, but none has at update 0"),
        ({"direction_shares": "aa-dd=1"}, "direction_shares must be among aa-bb"),
        ({"direction_shares": "aa-bb"}, "direction_shares must be NAME=NUMBER"),
        ({"join_updates": "aa-bb=1,aa-bb=2"}, "must name each key once, but has 'aa-bb' twice"),
        ({"min_share": 0.5, "max_share": 0.2}, "min_share must be at least 0 and at most max"),
        ({"loss_power": -1.0}, "loss_power must be between 0 and 20, but is -1"),
        ({"loss_power": 1e9}, "loss_power must be between 0 and 20, but is 1000000000"),
        ({"max_share": -1.0}, "max_share must be above 0 and at most 1, but is -1"),
        ({"task_mix": "translation=0:1/9:0"}, "must have a share, but none has at update 9"),
        ({"join_updates": "aa-bb=0:1/5:9"}, "join_updates must be one update .* aa-bb has a sche"),
        (
            {"direction_shares": "aa-bb=0.9,bb-aa=0.9"},
            "direction_shares of translation must be at most 1 together, .* are 1.8 at update 0",
        ),
        ({"direction_shares": "aa-bb=0.5/7:1.5"}, "at most 1 together, .* are 1.5 at update 7"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make_mixture(**options)
