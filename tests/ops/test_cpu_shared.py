"""Experts and the network beside them in one step equal the two apart, with all gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mtmoe.ops import cpu_shared
from mtmoe.ops.backend import CPU, TORCH
from mtmoe.ops.buffers import BufferPool
from mtmoe.ops.cpu_order import TokenOrder
from mtmoe.ops.cpu_shared import SharedWeights, fused_shared
from mtmoe.ops.dispatch import sort_by_expert
from mtmoe.ops.expert_ffn import ExpertWeights
from mtmoe.ops.routing import SKIPPED, assign_slots

NUM_PADDING = 3


def draw_case(T, E, capacity, dtype=torch.float64, D=5, width=7, seed=0):
    """Leaves x, weight, the experts' weights and the dense network's; permutation; (T,) real."""
    generator = torch.Generator().manual_seed(seed)
    expert = torch.rand(T, E, generator=generator).pow(3).argsort(1)[:, :1]
    slot = assign_slots(expert, E, capacity)
    slot[torch.rand(T, generator=generator) < 0.1] = SKIPPED
    real = torch.randperm(T + NUM_PADDING, generator=generator)[:T].sort().values
    shapes = [(T + NUM_PADDING, D), (T, 1)]
    shapes += [(E, D, width), (E, width), (E, width, D), (E, D)]
    shapes += [(width + 1, D), (width + 1,), (D, width + 1), (D,)]
    leaves = [torch.randn(*s, generator=generator, dtype=dtype) for s in shapes]
    leaves[1] = leaves[1].to(torch.promote_types(dtype, torch.float32))
    return [leaf.requires_grad_() for leaf in leaves], sort_by_expert(expert, slot, E), real


def apart(leaves, order, real, backend=TORCH):
    """The definition: experts, plus a dense network; 0 where no token is."""
    x, weight, *weights = leaves
    shared, rows = SharedWeights(*weights[4:]), x[real]
    y = backend.run_experts(rows, weight, order, ExpertWeights(*weights[:4]))
    y = y + F.linear(F.linear(rows, shared.w_in, shared.b_in).relu(), shared.w_out, shared.b_out)
    return y.new_zeros(x.shape).index_copy(0, real, y)


def joint(leaves, order, real, buffers=None):
    x, weight, *weights = leaves
    experts, shared = ExpertWeights(*weights[:4]), SharedWeights(*weights[4:])
    return fused_shared(x, weight, order, experts, shared, buffers, real)


def gradients_of(y, leaves):
    scale = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape)
    return torch.autograd.grad((y * scale).sum(), leaves)


def assert_equal(found, expected, leaves, **tolerance):
    torch.testing.assert_close(found, expected, **tolerance)
    pairs = zip(gradients_of(found, leaves), gradients_of(expected, leaves), strict=True)
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, **tolerance)


@settings(deadline=None, max_examples=60)
@given(
    T=st.integers(0, 14),
    E=st.integers(1, 5),
    capacity=st.integers(1, 14),
    seed=st.integers(0, 99),
)
def test_one_step_equals_two_networks_apart(T, E, capacity, seed):
    leaves, order, real = draw_case(T, E, capacity, seed=seed)
    found, expected = joint(leaves, order, real, BufferPool()), apart(leaves, order, real)
    assert_equal(found, expected, leaves, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chosen", [SKIPPED, 0, 2])
def test_no_expert_or_one_for_all_tokens(chosen):
    leaves, _, real = draw_case(9, 3, 9)
    expert = torch.full((9, 1), max(chosen, 0))
    order = sort_by_expert(expert, torch.full_like(expert, min(chosen, 0)), 3)
    assert_equal(joint(leaves, order, real), apart(leaves, order, real), leaves)


def test_all_positions_may_be_tokens():
    (x, *others), order, real = draw_case(9, 3, 9)
    leaves = [x.detach()[real].requires_grad_(), *others]
    everywhere = torch.arange(9)
    assert_equal(joint(leaves, order, None), apart(leaves, order, everywhere), leaves)


def test_one_step_passes_gradcheck():
    leaves, order, real = draw_case(4, 3, 2, D=3, width=2)
    assert torch.autograd.gradcheck(lambda *leaves: joint(leaves, order, real), leaves)


def test_a_share_of_zero_still_has_its_gradient():
    leaves, order, real = draw_case(6, 2, 6)
    leaves[1] = torch.zeros_like(leaves[1]).requires_grad_()
    assert_equal(joint(leaves, order, real), apart(leaves, order, real), leaves)


def test_float32_is_as_near_as_sums_in_another_order():
    leaves, order, real = draw_case(300, 4, 300, torch.float32, D=64, width=96)
    found, expected = joint(leaves, order, real), apart(leaves, order, real)
    pairs = zip(gradients_of(found, leaves), gradients_of(expected, leaves), strict=True)
    for mine, other in [(found, expected), *pairs]:
        assert (mine - other).abs().max() < 1e-5 * other.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_is_as_near_to_float32_as_two_networks_apart(dtype, monkeypatch):
    monkeypatch.setattr(cpu_shared, "compute_dtype", lambda _: dtype)
    leaves, order, real = draw_case(60, 4, 40, torch.float32, D=16, width=32)
    exact = apart(leaves, order, real)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, rounded = joint(leaves, order, real), apart(leaves, order, real, CPU)
    assert found.dtype == rounded.dtype == torch.bfloat16
    ours, *others = (gradients_of(y, leaves) for y in (found, rounded, exact))
    assert all(gradient.dtype == torch.float32 for gradient in ours)
    triples = zip(ours, *others, strict=True)
    for mine, other, right in [(found, rounded, exact), *triples]:
        error, allowed = ((y.float() - right).abs().max() for y in (mine, other))
        assert error < 1.5 * allowed + 0.01 * right.abs().max()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_output_is_the_same_and_the_layer_keeps_nothing(context):
    leaves, order, real = draw_case(9, 3, 4)
    pool, expected = BufferPool(), joint(leaves, order, real)
    with context():
        found = joint(leaves, order, real, pool)
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=0)
    assert not pool._kept


def test_two_passes_before_their_backwards_do_not_share_memory():
    leaves, order, real = draw_case(8, 3, 8)
    pool, other = BufferPool(), [torch.randn_like(leaves[0]), *leaves[1:]]
    first = joint(leaves, order, real, pool)
    joint(other, order, real, pool)
    assert_equal(first, apart(leaves, order, real), leaves)


def test_a_second_step_uses_the_memory_of_the_first_again():
    leaves, order, real = draw_case(8, 3, 8)
    pool = BufferPool()
    gradients_of(joint(leaves, order, real, pool), leaves)
    before = {name: kept.data_ptr() for name, kept in pool._kept.items()}
    gradients_of(joint(leaves, order, real, pool), leaves)
    assert before == {name: kept.data_ptr() for name, kept in pool._kept.items()}


def test_order_restores_what_it_sorts_and_leaves_padding_zero():
    (x, *_), permutation, real = draw_case(9, 3, 2)
    order, x = TokenOrder.of(permutation, real, len(x)), x.detach()
    rows = order.new_rows(x, BufferPool())
    order.sort(x, rows[:-1])
    expected = torch.zeros_like(x).index_copy(0, real, x[real])
    torch.testing.assert_close(order.restore(rows), expected)
    for part, (e,) in order.blocks((order.token,), (torch.arange(3)[:, None],)):
        assert (
            part.tolist() == permutation.token[permutation.counts[:e].sum() :][: len(part)].tolist()
        )
