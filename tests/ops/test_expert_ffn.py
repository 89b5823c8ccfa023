"""All implementations of the experts' networks equal a loop over rows, gradients included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mtmoe.config import Activation
from mtmoe.ops.expert_ffn import ExpertWeights, expert_ffn

E, D, F_ = 3, 4, 6


def draw(num_rows, activation, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = [(E, D, F_), (E, F_), (E, F_, D), (E, D)]
    shapes += [(E, D, F_)] if activation is Activation.swiglu else []
    rows, *weights = (
        torch.randn(*shape, dtype=dtype, generator=generator).requires_grad_()
        for shape in [(num_rows, D), *shapes]
    )
    return rows, ExpertWeights(*weights)


def ffn_by_loop(rows: Tensor, counts: list[int], weights: ExpertWeights, activation: Activation):
    expert = [e for e, n in enumerate(counts) for _ in range(n)]
    out = []
    for row, e in zip(rows, expert, strict=True):
        hidden = row @ weights.w_in[e] + weights.b_in[e]
        if activation is Activation.relu:
            hidden = hidden.clamp(min=0)
        elif activation is Activation.gelu:
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        else:
            gate = row @ weights.w_gate[e]
            hidden = gate * torch.sigmoid(gate) * hidden
        out.append(hidden @ weights.w_out[e] + weights.b_out[e])
    return torch.stack(out) if out else rows * 1


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("counts", [[2, 0, 3], [0, 0, 0], [0, 7, 0], [1, 1, 1]])
def test_expert_ffn_equals_a_loop_over_rows(counts, activation):
    rows, weights = draw(sum(counts), activation)
    expected = ffn_by_loop(rows, counts, weights, activation)
    found = expert_ffn(rows, torch.tensor(counts), weights, activation)
    torch.testing.assert_close(found, expected)
    scale = torch.randn(expected.shape, dtype=torch.float64)
    inputs = [rows, *(w for w in weights if w is not None)]
    ours = torch.autograd.grad((found * scale).sum(), inputs)
    theirs = torch.autograd.grad((expected * scale).sum(), inputs, allow_unused=True)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(mine) if other is None else other)


def test_dropout_zeroes_hidden_numbers():
    rows, weights = draw(5, Activation.relu)
    counts = torch.tensor([2, 0, 3])
    torch.manual_seed(0)
    dropped = expert_ffn(rows, counts, weights, Activation.relu, dropout=0.5)
    torch.manual_seed(0)
    kept = F.dropout(torch.ones(5, F_, dtype=torch.float64), 0.5)
    hidden = torch.cat(
        [
            F.relu(rows[a:b] @ weights.w_in[e] + weights.b_in[e])
            for e, a, b in ((0, 0, 2), (2, 2, 5))
        ]
    )
    scaled = hidden * kept
    expected = torch.cat(
        [scaled[a:b] @ weights.w_out[e] + weights.b_out[e] for e, a, b in ((0, 0, 2), (2, 2, 5))]
    )
    torch.testing.assert_close(dropped, expected)
