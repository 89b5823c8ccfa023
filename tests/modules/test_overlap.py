"""The shared network is computed while rows, or their gradients, are on their way."""

from __future__ import annotations

import time

import pytest
import torch
import torch._dynamo  # checkpointing imports it, which takes seconds: before ranks fork
import torch.distributed as dist

from mtmoe.config import (
    AllToAll,
    CheckpointActivations,
    MeshConfig,
    RouterConfig,
    TransformerConfig,
    Zero,
)
from mtmoe.modules import experts
from mtmoe.modules.initialise import initialise
from mtmoe.modules.moe_layer import MoELayer
from mtmoe.modules.tokens import Tokens
from mtmoe.ops.routing import RouterKey
from mtmoe.parallel import under_way as halves
from mtmoe.parallel.mesh import make_mesh
from mtmoe.parallel.plan import parallelize
from mtmoe.parallel.recompute import recompute
from mtmoe.parallel.slices import stored_part
from tests.ranks import run_ranks

PAUSE = 0.5  # seconds by which rank 1 sends later than it could


def make_layer(mesh):
    config = TransformerConfig(
        embed_dim=8,
        ffn_dim=6,
        shared_ffn_dim=4,
        attention_heads=2,
        router=RouterConfig(num_experts=4),
    )
    with torch.device("meta"):
        layer = MoELayer(config, 0, mesh=mesh)
    parallelize(layer, [], mesh, Zero.none)
    layer.to_empty(device="cpu")
    initialise(layer, 3)
    return layer


def run(layer, mode=CheckpointActivations.none):
    x = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(dist.get_rank()))
    x.requires_grad_()
    y, _ = recompute(mode, layer, x, Tokens((2, 6)), RouterKey.of(1, 5, dist.get_rank()))
    (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
    return [y.detach(), x.grad, *(stored_part(p.grad) for p in layer.parameters())]


def under_way():
    """For each all-to-all that was started and not waited for: whether all rows have come."""
    return [exchange.work.is_completed() for exchange in halves._under_way.values()]


def check_overlap(options):
    layer, seen = make_layer(make_mesh(MeshConfig(2, **options))), {}
    is_late = dist.get_rank() == 1
    send = experts.send_rows

    def send_late(*args):
        time.sleep(PAUSE)
        return send(*args)

    if is_late:
        experts.send_rows = send_late
        layer.experts.w_in.register_hook(lambda gradient: time.sleep(PAUSE))
    layer.shared.register_forward_hook(lambda *args: seen.update(forward=under_way()))
    layer.shared.fc_in.weight.register_hook(lambda gradient: seen.update(backward=under_way()))
    run(layer)
    assert {name: len(found) for name, found in seen.items()} == {"forward": 1, "backward": 1}
    assert is_late or seen == {"forward": [False], "backward": [False]}, "rank 0 did not wait"
    assert not halves._under_way


@pytest.mark.parametrize("all_to_all", list(AllToAll))
def test_shared_network_runs_while_rows_are_under_way(all_to_all):
    options = {"all_to_all": all_to_all, "node_size": 1}
    run_ranks(check_overlap, 2, options)


def check_equality():
    layer = make_layer(make_mesh(MeshConfig(2)))
    found = run(layer)
    receive, send = experts.receive_rows, experts.send_rows
    experts.send_rows = lambda *args: receive(send(*args), *args[1:])  # waits at once
    experts.receive_rows = lambda rows, *args: rows
    for mode in CheckpointActivations:
        layer.zero_grad()
        for ours, expected in zip(run(layer, mode), found, strict=True):
            assert torch.equal(ours, expected)
        assert not halves._under_way


def test_what_is_computed_meanwhile_changes_no_bit():
    run_ranks(check_equality, 2)


def check_recomputation():
    layer = make_layer(make_mesh(MeshConfig(2)))
    found = run(layer)
    for mode in CheckpointActivations:
        layer.zero_grad()
        for ours, expected in zip(run(layer, mode), found, strict=True):
            assert torch.equal(ours, expected)
        assert not halves._under_way, "nothing is left on its way"


def test_recomputation_leaves_nothing_under_way():
    run_ranks(check_recomputation, 2)
