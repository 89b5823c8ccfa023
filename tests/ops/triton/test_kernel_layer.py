"""The whole MoE layer on the triton backend equals the layer on the definition."""

from __future__ import annotations

import pytest
import torch

from mtmoe.config import Activation, BackendChoice, RouterConfig, TransformerConfig
from mtmoe.modules.initialise import initialise
from mtmoe.modules.moe_layer import MoELayer
from mtmoe.modules.tokens import Tokens
from mtmoe.ops.routing import RouterKey


def run_layer(backend: BackendChoice, router: RouterConfig, device: torch.device):
    config = TransformerConfig(
        embed_dim=16,
        ffn_dim=24,
        attention_heads=2,
        activation=Activation.gelu,
        backend=backend,
        router=router,
    )
    layer = MoELayer(config, 0)
    initialise(layer, 1)
    layer = layer.to(device)
    x = torch.randn(2, 20, 16, generator=torch.Generator().manual_seed(2)).to(device)
    x.requires_grad_()
    tokens = Tokens((2, 20), real=torch.arange(35, device=device))
    y, routing = layer(x, tokens, RouterKey(1, 1))
    y.square().sum().backward()
    gradients = [p.grad for p in layer.parameters()]
    return routing.slot, [y, x.grad, *gradients]


@pytest.mark.parametrize("capacity_factor", [0.0, 0.6])
def test_layer_equals_the_definition_with_gradients(device, capacity_factor):
    router = RouterConfig(num_experts=5, top_k=2, capacity_factor=capacity_factor, jitter=0.1)
    slot, found = run_layer(BackendChoice.triton, router, device)
    expected_slot, expected = run_layer(BackendChoice.torch, router, device)
    assert torch.equal(slot, expected_slot)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)
