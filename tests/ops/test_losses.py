"""The balance loss against its definition."""

from __future__ import annotations

import math

import pytest
import torch

from mtmoe.ops.losses import balance_loss, budget_loss, z_loss


def test_balance_loss_equals_its_definition():
    probs = torch.rand(10, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    expert = probs.argmax(1)
    expected = 0.0
    for e in range(4):
        mean_prob = sum(float(probs[t, e]) for t in range(10)) / 10
        share = sum(int(expert[t]) == e for t in range(10)) / 10
        expected += 4 * mean_prob * share
    torch.testing.assert_close(balance_loss(probs, expert), torch.tensor(expected))


def test_balance_loss_is_one_when_balanced_and_e_when_collapsed():
    even = torch.full((8, 4), 0.25)
    torch.testing.assert_close(balance_loss(even, torch.arange(8) % 4), torch.tensor(1.0))
    one = torch.eye(4)[torch.zeros(8, dtype=torch.int64)]
    torch.testing.assert_close(balance_loss(one, one.argmax(1)), torch.tensor(4.0))


def test_balance_loss_without_tokens_is_zero():
    probs = torch.empty(0, 4, requires_grad=True)
    loss = balance_loss(probs, torch.empty(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0


def test_z_loss_and_budget_loss_equal_loops():
    scores = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = sum(math.log(sum(math.exp(s) for s in row)) ** 2 for row in scores.tolist()) / 6
    assert z_loss(scores).item() == pytest.approx(expected)
    assert z_loss(scores[:0]) == 0
    gate = scores.sigmoid()[:, 0]
    assert budget_loss(gate, 0.8).item() == pytest.approx(abs(sum(gate.tolist()) / 6 - 0.8))
    assert budget_loss(gate[:0], 0.8) == 0
    assert torch.autograd.gradcheck(z_loss, scores.requires_grad_())
