"""Duplicate token dropping: 1/tensor of the bytes of each all-to-all, the same results."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo  # checkpointing imports it, which takes seconds: before ranks fork
import torch.distributed as dist
from torch.testing import assert_close

from mtmoe.config import (
    CheckpointActivations,
    DropPolicy,
    MeshConfig,
    RouterConfig,
    TransformerConfig,
    Zero,
)
from mtmoe.modules.initialise import initialise
from mtmoe.modules.moe_layer import MoELayer
from mtmoe.modules.tokens import Tokens
from mtmoe.ops.routing import RouterKey
from mtmoe.parallel.collectives import count_traffic
from mtmoe.parallel.mesh import make_mesh
from mtmoe.parallel.plan import parallelize
from mtmoe.parallel.recompute import recompute
from mtmoe.parallel.slices import stored_part
from tests.ranks import run_ranks

D, S = 6, 7
NONE, FULL, KEEP = CheckpointActivations
ROUTERS = {
    "dropless": {"top_k": 2},
    "RTS with capacity": {"capacity_factor": 0.7, "drop_policy": DropPolicy.random},
}


def run(router, tensor, deduplicate, mode):
    """Output, gradients and traffic of one layer on expert 2 x tensor ranks, forward, backward."""
    mesh = make_mesh(MeshConfig(2, tensor, deduplicate_tokens=deduplicate))
    config = TransformerConfig(
        embed_dim=D, ffn_dim=12, attention_heads=1, router=RouterConfig(num_experts=4, **router)
    )
    with torch.device("meta"):
        layer = MoELayer(config, 0, mesh=mesh).double()
    parallelize(layer, [], mesh, Zero.none)
    layer.to_empty(device="cpu")
    initialise(layer, 3)
    rank = mesh.batch.rank
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(3, S, D, dtype=torch.float64, generator=generator).requires_grad_()
    tokens = Tokens((3, S), real=torch.arange(3 * S - 2 - rank))
    with count_traffic() as traffic:
        y, _ = recompute(mode, layer, x, tokens, RouterKey.of(1, 5, rank))
        (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
    gradients = [x.grad, *(stored_part(p.grad) for p in layer.parameters() if p.grad is not None)]
    return [y.detach(), *gradients], traffic


def bytes_of_all(traffic):
    total = torch.tensor(traffic.sent_bytes["all_to_all"])
    dist.all_reduce(total)
    return total.item()


def check(router, tensor):
    found = {}
    for deduplicate in (False, True):
        for mode in CheckpointActivations:
            found[deduplicate, mode] = run(router, tensor, deduplicate, mode)
    for mode, num_calls in ((NONE, 4), (FULL, 6), (KEEP, 4)):
        plain, shared = found[False, mode][1], found[True, mode][1]
        assert plain.calls["all_to_all"] == shared.calls["all_to_all"] == num_calls
        assert bytes_of_all(plain) == tensor * bytes_of_all(shared) > 0
        assert_close(found[True, mode][0], found[False, mode][0], atol=1e-12, rtol=1e-12)
        for deduplicate in (False, True):
            expected = found[deduplicate, NONE][0]
            assert all(map(torch.equal, found[deduplicate, mode][0], expected)), "bit by bit"


@pytest.mark.parametrize("router", list(ROUTERS))
@pytest.mark.parametrize("tensor", [2, 3])
def test_all_to_alls_carry_their_share_of_the_bytes_and_give_the_same(tensor, router):
    run_ranks(check, 2 * tensor, ROUTERS[router], tensor)
