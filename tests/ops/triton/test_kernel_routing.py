"""Slots and the order of rows: the kernels equal the definitions exactly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtmoe.ops import dispatch, routing
from mtmoe.ops.triton.routing import BLOCK, assign_slots, sort_by_expert


def draw_experts(T, E, K, seed, device):
    """Skewed choices: the first expert is liked most."""
    generator = torch.Generator().manual_seed(seed)
    score = torch.randn(T, E, generator=generator) + torch.linspace(2, 0, E)
    return score.argsort(1, descending=True)[:, :K].to(device)


def check_order(expert, slot, num_experts):
    found = sort_by_expert(expert, slot, num_experts)
    expected = dispatch.sort_by_expert(expert, slot, num_experts)
    assert torch.equal(found.row, expected.row)
    assert torch.equal(found.counts, expected.counts)
    num_rows = expected.choice.shape[0]
    assert torch.equal(found.choice[:num_rows], expected.choice)
    without_slot = (slot.flatten() < 0).nonzero().squeeze(1)
    assert torch.equal(found.choice[num_rows:], without_slot)


@settings(deadline=None, max_examples=40)
@given(
    T=st.integers(0, 20),
    E=st.integers(1, 6),
    capacity=st.integers(1, 8),
    use_priority=st.booleans(),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_slots_and_order_equal_their_definitions(T, E, capacity, use_priority, seed, data, device):
    expert = draw_experts(T, E, data.draw(st.integers(1, min(E, 3))), seed, device)
    priority = None
    if use_priority:  # equal ones, too
        priority = torch.randint(5, (T,), generator=torch.Generator().manual_seed(seed)) / 5
        priority = priority.to(device)
    slot = assign_slots(expert, E, capacity, priority)
    assert torch.equal(slot, routing.assign_slots(expert, E, capacity, priority))
    check_order(expert, slot, E)


@pytest.mark.parametrize("T", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
@pytest.mark.parametrize(("E", "K"), [(1, 1), (5, 3), (200, 2)])
def test_places_go_on_from_block_to_block(T, E, K, device):
    expert = draw_experts(T, E, K, T, device)
    priority = torch.rand(T, generator=torch.Generator().manual_seed(1)).to(device)
    capacity = 1 + T // 4
    slot = assign_slots(expert, E, capacity, priority)
    assert torch.equal(slot, routing.assign_slots(expert, E, capacity, priority))
    check_order(expert, slot, E)


def test_choices_that_want_no_slot_come_last_with_the_dropped_ones(device):
    expert = draw_experts(30, 4, 2, 0, device)
    slot = assign_slots(expert, 4, 9)
    slot = routing.mark_skipped(slot, (torch.arange(60).view(30, 2) % 7 != 0).to(device))
    assert {-1, -2} <= set(slot.flatten().tolist())
    check_order(expert, slot, 4)


def test_dropless_routing_orders_all_choices(device):
    expert = draw_experts(50, 4, 2, 0, device)
    check_order(expert, torch.zeros_like(expert), 4)


def test_non_contiguous_choices_are_read_as_what_they_are(device):
    expert = draw_experts(40, 5, 4, 0, device)[:, ::2]
    slot = assign_slots(expert, 5, 8)
    assert torch.equal(slot, routing.assign_slots(expert, 5, 8))
    check_order(expert, slot.t().contiguous().t(), 5)
