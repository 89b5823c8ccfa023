"""What the router promises about training, evaluation and padding."""

from __future__ import annotations

import pytest
import torch

from mtmoe.config import DropPolicy, RouterConfig
from mtmoe.modules.router import Router
from mtmoe.ops.routing import layer_generator


def make_router(**settings):
    router = Router(RouterConfig(**settings), embed_dim=16)
    torch.nn.init.normal_(router.weight, generator=torch.Generator().manual_seed(0))
    return router


def generator(seed=1):
    return layer_generator(seed, 0, torch.device("cpu"))


X = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))


def test_one_choice_is_weighted_by_its_raw_probability():
    routing = make_router(num_experts=4, top_k=1, jitter=0.0)(X)
    probs = (X @ make_router(num_experts=4).weight.t()).softmax(1)
    torch.testing.assert_close(routing.weight[:, 0], probs.max(1).values)


def test_two_choices_are_weighted_to_a_sum_of_one():
    routing = make_router(num_experts=4, top_k=2).eval()(X)
    torch.testing.assert_close(routing.weight.sum(1), torch.ones(64))
    assert (routing.weight[:, 0] >= routing.weight[:, 1]).all()


def test_evaluation_draws_nothing_and_drops_nothing():
    router = make_router(num_experts=4, top_k=1, capacity_factor=0.25, jitter=0.3).eval()
    first, second = router(X), router(X)
    assert (first.slot >= 0).all()
    assert torch.equal(first.probs, second.probs)


@pytest.mark.parametrize("policy", list(DropPolicy))
def test_training_with_capacity_drops_and_is_repeatable(policy):
    router = make_router(num_experts=4, top_k=1, capacity_factor=0.5, drop_policy=policy)
    first, again, other = router(X, generator(1)), router(X, generator(1)), router(X, generator(2))
    assert (first.slot < 0).sum() >= 32
    assert torch.equal(first.slot, again.slot)
    assert torch.equal(first.slot, other.slot) == (policy is DropPolicy.order)


def test_jitter_changes_scores_in_training_only():
    router = make_router(num_experts=4, jitter=0.1)
    clean = router.eval()(X).probs
    noisy = router.train()(X, generator()).probs
    assert not torch.equal(clean, noisy)
    torch.testing.assert_close(clean, noisy, atol=0.2, rtol=0)


def test_scores_are_float32_in_bfloat16_models_and_under_autocast():
    router = make_router(num_experts=4).eval()
    exact = router(X.bfloat16().float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = router(X.bfloat16())
    assert mixed.probs.dtype == torch.float32
    assert torch.equal(mixed.expert, exact.expert)


def test_gradient_reaches_the_router_through_the_weight():
    router = make_router(num_experts=4, top_k=1)
    router(X, generator()).weight.sum().backward()
    assert router.weight.grad.abs().sum() > 0
