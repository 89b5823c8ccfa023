"""Permute and combine: the kernels equal the definitions, gradients included."""

from __future__ import annotations

import pytest
import torch

from mtmoe.ops import dispatch
from mtmoe.ops.triton.permute import combine, permute
from mtmoe.ops.triton.routing import assign_slots, sort_by_expert

CASES = [  # T, E, K, capacity, D
    (0, 3, 2, 4, 8),
    (1, 1, 1, 1, 1),
    (37, 4, 1, 5, 300),  # many dropped; several blocks of tokens and columns
    (20, 4, 2, 99, 16),  # none dropped
    (18, 3, 3, 4, 33),
]
TOLERANCE = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
    torch.float16: {"rtol": 3e-3, "atol": 3e-3},
}


def draw(T, E, K, capacity, D, device, dtype=torch.float32):
    """Tokens, weights and the permutations of kernel and definition for skewed routing."""
    generator = torch.Generator().manual_seed(T)
    score = torch.randn(T, E, generator=generator) + torch.linspace(1, 0, E)
    expert = score.argsort(1, descending=True)[:, :K].to(device)
    slot = assign_slots(expert, E, capacity)
    x = torch.randn(T, D, generator=generator).to(device, dtype).requires_grad_()
    weight = torch.rand(T, K, generator=generator).to(device).requires_grad_()
    ours, theirs = sort_by_expert(expert, slot, E), dispatch.sort_by_expert(expert, slot, E)
    return x, weight, ours, theirs


def normal_like(x):
    """Random numbers in another memory order than that of `x`."""
    numbers = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    return numbers.to(x.device, x.dtype).t().contiguous().t()


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_permute_equals_its_definition_with_gradients(case, dtype, device):
    x, _, ours, theirs = draw(*case, device, dtype)
    rows, expected = permute(x, ours), dispatch.permute(x, theirs)
    assert torch.equal(rows[: len(expected)], expected)
    assert not rows[len(expected) :].any()

    grad = normal_like(rows)
    grad[len(expected) :] = torch.nan  # the gradient of unused rows is not read
    (found,) = torch.autograd.grad(rows, x, grad)
    (wanted,) = torch.autograd.grad(expected.float(), x, grad[: len(expected)].float())
    torch.testing.assert_close(found, wanted, **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_combine_equals_its_definition_with_gradients(case, dtype, device):
    x, weight, ours, theirs = draw(*case, device, dtype)
    num_rows = theirs.choice.shape[0]
    rows = normal_like(x.new_empty(ours.choice.shape[0], x.shape[1])).requires_grad_()
    with torch.no_grad():
        rows[num_rows:] = torch.nan  # unused rows are not read
    y, expected = combine(rows, weight, ours), dispatch.combine(rows[:num_rows], weight, theirs)
    assert y.dtype == dtype
    torch.testing.assert_close(y, expected, **TOLERANCE[dtype])

    grad = normal_like(y)
    found = torch.autograd.grad(y, (rows, weight), grad)
    wanted = torch.autograd.grad(expected, (rows, weight), grad)
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(
            mine, other, rtol=1e-2, atol=1e-2 * (dtype != torch.float32) + 1e-4
        )
    assert not found[0][num_rows:].any()


def test_the_weight_of_a_dropped_choice_is_not_read(device):
    x, weight, ours, _ = draw(37, 4, 1, 5, 8, device)
    with torch.no_grad():
        weight[ours.row < 0] = torch.nan
    y = combine(permute(x, ours), weight, ours)
    d_x, d_weight = torch.autograd.grad(y.sum(), (x, weight))
    assert all(t.isfinite().all() for t in (y, d_x, d_weight))
    assert not d_weight[ours.row < 0].any()


def test_combine_after_permute_is_the_identity_and_so_is_its_gradient(device):
    x, _, ours, _ = draw(20, 4, 2, 99, 16, device)
    y = combine(permute(x, ours), torch.full((20, 2), 0.5, device=device), ours)
    torch.testing.assert_close(y, x)
    grad = normal_like(y)
    torch.testing.assert_close(torch.autograd.grad(y, x, grad)[0], grad)


def test_non_contiguous_tensors_are_read_as_what_they_are(device):
    x, weight, ours, theirs = draw(20, 4, 2, 6, 24, device)
    x, weight = (t.detach().t().contiguous().t().requires_grad_() for t in (x, weight))
    assert not x.is_contiguous()
    assert not weight.is_contiguous()
    y = combine(permute(x, ours), weight, ours)
    expected = dispatch.combine(dispatch.permute(x, theirs), weight, theirs)
    torch.testing.assert_close(y, expected)
    grad = normal_like(y)
    found = torch.autograd.grad(y, (x, weight), grad)
    wanted = torch.autograd.grad(expected, (x, weight), grad)
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other)


def test_an_infinite_gradient_does_not_reach_unused_rows(device):
    x, weight, ours, _ = draw(37, 4, 1, 5, 8, device)
    rows = permute(x, ours).detach().requires_grad_()
    y = combine(rows, weight, ours)
    grad = torch.zeros_like(y).masked_fill(ours.row < 0, torch.inf)
    d_rows, d_weight = torch.autograd.grad(y, (rows, weight), grad)
    assert not d_rows.any()
    assert not d_weight.any()


def test_permutation_of_the_definition_is_understood(device):
    x, weight, _, theirs = draw(37, 4, 1, 5, 8, device)
    y = combine(permute(x, theirs), weight, theirs)
    expected = dispatch.combine(dispatch.permute(x, theirs), weight, theirs)
    torch.testing.assert_close(y, expected)
    found, wanted = (torch.autograd.grad(t.sum(), weight)[0] for t in (y, expected))
    torch.testing.assert_close(found, wanted)
