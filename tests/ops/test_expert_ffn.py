"""The fast expert FFN equals its definition, gradients included."""

from __future__ import annotations

import pytest
import torch

from mtmoe.ops.expert_ffn import expert_ffn, fast_expert_ffn

SHAPES = ((3, 4, 6), (3, 6), (3, 6, 4), (3, 4))  # E 3, D 4, F 6


def draw(num_rows, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    make = lambda *s: torch.randn(*s, dtype=dtype, generator=generator).requires_grad_()  # noqa: E731
    return make(num_rows, 4), tuple(make(*shape) for shape in SHAPES)


@pytest.mark.parametrize("counts", [[2, 0, 3], [0, 0, 0], [0, 7, 0], [1, 1, 1]])
def test_fast_ffn_equals_a_loop_over_rows(counts):
    rows, weights = draw(sum(counts))
    w_in, b_in, w_out, b_out = weights
    expert = [e for e, n in enumerate(counts) for _ in range(n)]
    expected = [
        (rows[r] @ w_in[e] + b_in[e]).relu() @ w_out[e] + b_out[e] for r, e in enumerate(expert)
    ]
    expected = torch.stack(expected) if expected else rows * 1
    scale = torch.randn(expected.shape, dtype=torch.float64)
    for function in (expert_ffn, fast_expert_ffn):
        found = function(rows, counts, weights)
        torch.testing.assert_close(found, expected)
        inputs = (rows, *weights)
        ours = torch.autograd.grad((found * scale).sum(), inputs)
        theirs = torch.autograd.grad(
            (expected * scale).sum(), inputs, allow_unused=True, retain_graph=True
        )
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, torch.zeros_like(mine) if other is None else other)


def test_fast_ffn_under_autocast_computes_in_bfloat16_and_gives_float32_gradients():
    rows, weights = draw(5, torch.float32)
    exact = expert_ffn(rows, [2, 0, 3], weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = fast_expert_ffn(rows, [2, 0, 3], weights)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), exact, rtol=0.05, atol=0.2)
    mixed.float().sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in (rows, *weights))


def test_dropout_zeroes_hidden_numbers():
    rows, weights = draw(5)
    torch.manual_seed(0)
    dropped = expert_ffn(rows, [2, 0, 3], weights, dropout=0.5)
    assert not torch.allclose(dropped, expert_ffn(rows, [2, 0, 3], weights))
