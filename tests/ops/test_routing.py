"""Slots: who gets one, who is dropped."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtmoe.ops.routing import (
    DROPPED,
    RouterKey,
    assign_slots,
    expert_capacity,
    layer_generator,
    mix_seed,
    update_choice_bias,
)


def slots_by_loop(expert, num_experts, capacity, priority):
    """Walk through first choices in order of priority, then through second choices, and so on."""
    T, K = expert.shape
    order = range(T) if priority is None else sorted(range(T), key=lambda t: (-priority[t], t))
    used = [0] * num_experts
    slot = [[DROPPED] * K for _ in range(T)]
    for k in range(K):
        for t in order:
            e = int(expert[t, k])
            if used[e] < capacity:
                slot[t][k] = used[e]
                used[e] += 1
    return torch.tensor(slot, dtype=torch.int64).view(T, K)


@settings(deadline=None, max_examples=60)
@given(
    T=st.integers(0, 20),
    E=st.integers(1, 6),
    capacity=st.integers(1, 8),
    use_priority=st.booleans(),
    data=st.data(),
)
def test_slots_equal_a_loop_over_tokens(T, E, capacity, use_priority, data):
    K = data.draw(st.integers(1, E))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    expert = torch.rand(T, E, generator=generator).argsort(1)[:, :K]
    priority = torch.rand(T, generator=generator) if use_priority else None
    expected = slots_by_loop(expert, E, capacity, priority.tolist() if use_priority else None)
    assert torch.equal(assign_slots(expert, E, capacity, priority), expected)


def skewed_batch():
    """16,384 first choices among 16 experts, of which five get more than their share."""
    generator = torch.Generator().manual_seed(0)
    popular = [0.24, 0.12, 0.105, 0.08, 0.07]
    shares = torch.tensor([*popular, *[(1 - sum(popular)) / 11] * 11])
    return torch.multinomial(shares, 16384, replacement=True, generator=generator), generator


def kept_by_quarter(slot):
    return [(part >= 0).float().mean().item() for part in slot.chunk(4)]


def test_first_come_turns_away_the_end_of_the_batch():
    expert, _ = skewed_batch()
    kept = kept_by_quarter(assign_slots(expert.unsqueeze(1), 16, 1024))  # capacity factor 1
    assert kept == pytest.approx([1.00, 0.77, 0.58, 0.44], abs=0.02)


def test_random_token_selection_treats_all_positions_alike():
    expert, generator = skewed_batch()
    in_order = assign_slots(expert.unsqueeze(1), 16, 1024)
    priority = torch.rand(16384, generator=generator)
    at_random = assign_slots(expert.unsqueeze(1), 16, 1024, priority)
    assert kept_by_quarter(at_random) == pytest.approx([0.70] * 4, abs=0.02)
    assert (at_random >= 0).sum() == (in_order >= 0).sum()


@pytest.mark.parametrize(
    ("factor", "top_k", "tokens", "experts", "minimum", "expected"),
    [
        (1.0, 1, 100, 8, 1, 13),
        (1.25, 2, 64, 8, 1, 20),
        (0.01, 1, 3, 8, 1, 1),
        (1.0, 1, 0, 4, 1, 1),
        (1.0, 1, 100, 8, 20, 20),
    ],
)
def test_capacity_is_rounded_up_and_at_least_the_minimum(
    factor, top_k, tokens, experts, minimum, expected
):
    assert expert_capacity(factor, top_k, tokens, experts, minimum) == expected


def test_choice_bias_moves_against_the_load():
    bias = torch.zeros(4)
    update_choice_bias(bias, torch.tensor([10, 2, 4, 4]), 0.1)
    torch.testing.assert_close(bias, torch.tensor([-0.1, 0.1, 0.1, 0.1]))
    update_choice_bias(bias, torch.tensor([5, 5, 5, 5]), 0.1)
    torch.testing.assert_close(bias, torch.tensor([-0.1, 0.1, 0.1, 0.1]))


def test_keys_share_the_update_and_differ_by_micro_batch():
    first, second = RouterKey.of(1, 7, 0), RouterKey.of(1, 7, 1)
    assert first.update == second.update != RouterKey.of(1, 8, 0).update
    assert len({first.share, second.share, RouterKey.of(2, 7, 0).share}) == 3


def test_random_numbers_depend_on_each_part_of_the_key():
    draw = lambda *key: torch.rand(4, generator=layer_generator(*key, torch.device("cpu")))  # noqa: E731
    assert torch.equal(draw(3, 1), draw(3, 1))
    assert not torch.equal(draw(3, 1), draw(3, 2))
    assert not torch.equal(draw(3, 1), draw(4, 1))
    assert mix_seed(1, 2) != mix_seed(2, 1)
    assert 0 <= mix_seed(2**80, 5) < 2**63
