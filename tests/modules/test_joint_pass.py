"""Where experts and shared network may be one step, the layer is the same; elsewhere it is off."""

from __future__ import annotations

import copy

import pytest
import torch

from mtmoe.config import (
    Activation,
    BackendChoice,
    ChooseBy,
    RouterConfig,
    RouterInput,
    SharedMode,
    TransformerConfig,
)
from mtmoe.modules import experts
from mtmoe.modules.initialise import initialise
from mtmoe.modules.moe_layer import MoELayer
from mtmoe.modules.tokens import Tokens
from mtmoe.ops.backend import CPU, TORCH
from mtmoe.ops.routing import RouterKey

KEY = RouterKey(1, 1)
TOKENS = Tokens(
    (2, 5), real=torch.tensor([0, 1, 2, 5, 6, 7, 8, 9]), languages=torch.tensor([[0, 1], [1, 0]])
)


@pytest.fixture(autouse=True)
def joins_few_rows(monkeypatch):
    monkeypatch.setattr(experts, "MAX_MEAN_ROWS", 0)


def make_layer(choose_by=ChooseBy.token, router=None, **settings):
    router = {"num_experts": 4, "top_k": 1, "jitter": 0.0} | (router or {})
    sizes = {"embed_dim": 8, "ffn_dim": 6, "attention_heads": 2, "moe_every": 1}
    sizes |= {"shared_ffn_dim": 5}
    config = TransformerConfig(**(sizes | settings), router=RouterConfig(**router))
    layer = MoELayer(config, 0, choose_by, num_languages=2)
    initialise(layer, 3)
    return layer.double()


def is_joint(layer, tokens=TOKENS, backend=CPU):
    return layer._is_joint(layer.shared, tokens, backend)


@pytest.mark.parametrize("tokens", [TOKENS, Tokens((2, 5), languages=TOKENS.languages)])
@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize(
    "router",
    [
        {},
        {"num_experts": 1},
        {"capacity_factor": 0.5, "eval_capacity_factor": 0.5},
        {"jitter": 0.3},
        {"router_input": RouterInput.language},
        {"router_input": RouterInput.token_and_language},
        {"gating_dropout": 0.999},
        {"expert_output_masking": 0.5},
    ],
)
def test_one_step_equals_the_definition(tokens, is_training, router):
    layer = make_layer(router=router).train(is_training)
    other = copy.deepcopy(layer)
    other.backend = BackendChoice.torch
    assert is_joint(layer)
    assert not is_joint(other, backend=TORCH)
    results = []
    for network in (layer, other):
        x = torch.randn(2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        y, routing = network(x.requires_grad_(), tokens, KEY)
        scale = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape)
        ((y * scale).sum() + routing.balance_loss).backward()
        gradients = [torch.zeros(()) if p.grad is None else p.grad for p in network.parameters()]
        results.append([y, routing.expert, routing.slot, routing.weight, x.grad, *gradients])
    for mine, expected in zip(*results, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        {"shared_mode": SharedMode.mixed},
        {"shared_mode": SharedMode.conditional},
        {"activation": Activation.gelu},
        {"activation_dropout": 0.1},
        {"router": {"top_k": 2}},
        {"choose_by": ChooseBy.expert},
    ],
)
def test_one_step_is_off_for_what_it_cannot_do(settings):
    assert is_joint(make_layer())
    assert not is_joint(make_layer(**settings))


def test_dropout_is_off_in_evaluation_and_there_one_step_is_on():
    assert is_joint(make_layer(activation_dropout=0.1).eval())


def test_few_rows_are_left_to_padding_unless_there_is_no_backward_pass(monkeypatch):
    monkeypatch.setattr(experts, "MAX_MEAN_ROWS", 2)
    layer = make_layer()
    assert not is_joint(layer)
    assert is_joint(layer, Tokens((3, 3)))
    with torch.no_grad():
        assert is_joint(layer)
