"""Permute, expert products, combine."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtmoe.ops.dispatch import combine, permute, sort_by_expert
from mtmoe.ops.expert_linear import expert_linear
from mtmoe.ops.routing import assign_slots


def draw_choice(T, E, K, capacity, seed):
    generator = torch.Generator().manual_seed(seed)
    expert = torch.rand(T, E, generator=generator).argsort(1)[:, :K]
    return expert, assign_slots(expert, E, capacity), torch.rand(T, K, generator=generator)


@settings(deadline=None, max_examples=40)
@given(
    T=st.integers(0, 12),
    E=st.integers(1, 5),
    capacity=st.integers(1, 6),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_layer_equals_a_loop_over_tokens_with_gradients(T, E, capacity, seed, data):
    K = data.draw(st.integers(1, E))
    expert, slot, weight = draw_choice(T, E, K, capacity, seed)
    generator = torch.Generator().manual_seed(seed)
    leaves = [
        torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((T, 3), (E, 3, 2), (E, 2))
    ]
    x, w, b = leaves
    weight = weight.double().requires_grad_()

    order = sort_by_expert(expert, slot, E)
    y = combine(expert_linear(permute(x, order), order.counts.tolist(), w, b), weight, order)

    expected = torch.zeros(T, 2, dtype=torch.float64)
    for t in range(T):
        for k in range(K):
            e = int(expert[t, k])
            if slot[t, k] >= 0:
                row = expected[t] + weight[t, k] * (x[t] @ w[e] + b[e])
                expected = torch.cat([expected[:t], row[None], expected[t + 1 :]])
    torch.testing.assert_close(y, expected)
    scale = torch.randn(T, 2, dtype=torch.float64, generator=generator)
    inputs = [*leaves, weight]
    ours = torch.autograd.grad((y * scale).sum(), inputs, retain_graph=True)
    theirs = torch.autograd.grad((expected * scale + 0 * x.sum()).sum(), inputs, allow_unused=True)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(mine) if other is None else other)


def test_combine_after_permute_is_the_identity():
    expert, slot, _ = draw_choice(9, 4, 2, 99, 3)
    x = torch.randn(9, 5)
    order = sort_by_expert(expert, slot, 4)
    y = combine(permute(x, order), torch.full((9, 2), 0.5), order)
    torch.testing.assert_close(y, x)


def test_expert_linear_passes_gradcheck():
    rows = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 3, 2, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: expert_linear(a[0], [2, 0, 3], *a[1:]), (rows, w, b))
