"""P ranks that share the experts out equal one process, outputs and all gradients, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.testing import assert_close

from mtmoe.config import (
    Activation,
    BackendChoice,
    ChooseBy,
    DropPolicy,
    MeshConfig,
    RouterConfig,
    SharedMode,
    TransformerConfig,
    Zero,
)
from mtmoe.errors import LayoutError
from mtmoe.modules.experts import Experts
from mtmoe.modules.initialise import initialise
from mtmoe.modules.moe_layer import MoELayer
from mtmoe.modules.tokens import Tokens
from mtmoe.ops.routing import RouterKey
from mtmoe.parallel.collectives import count_traffic
from mtmoe.parallel.mesh import ONE_PROCESS, Axis, Mesh, make_mesh
from mtmoe.parallel.plan import parallelize
from mtmoe.parallel.slices import slices_of, stored_part
from tests.ranks import run_ranks

D, S = 8, 6


def make_layer(settings, mesh=ONE_PROCESS):
    router = RouterConfig(**({"num_experts": 8, "jitter": 0.1} | settings.get("router", {})))
    config = TransformerConfig(
        embed_dim=D,
        ffn_dim=6,
        attention_heads=2,
        router=router,
        **{k: v for k, v in settings.items() if k not in ("router", "choose_by")},
    )
    with torch.device("meta"):
        layer = MoELayer(config, 0, settings.get("choose_by", ChooseBy.token), mesh=mesh).double()
    parallelize(layer, [], mesh, Zero.none)
    layer.to_empty(device="cpu")
    initialise(layer, 3)
    return layer


def batch_of(rank, empty_rank):
    """Uneven batches; one rank may have padding only."""
    num_real = 0 if rank == empty_rank else 3 * S - 2 - rank
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(3, S, D, dtype=torch.float64, generator=generator)
    return x, Tokens((3, S), real=torch.arange(num_real))


def run(layer, rank, empty_rank):
    x, tokens = batch_of(rank, empty_rank)
    x.requires_grad_()
    y, routing = layer(x, tokens, RouterKey.of(1, 5, rank))
    loss = (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum()
    (loss + routing.balance_loss.double()).backward()
    return y.detach(), x.grad


def check_layer(settings, empty_rank):
    mesh = make_mesh(MeshConfig(expert_parallel_size=dist.get_world_size()))
    axis = mesh.expert
    whole, ours = make_layer(settings), make_layer(settings, mesh)
    expected = [run(whole, rank, empty_rank) for rank in range(axis.size)][axis.rank]
    with count_traffic() as traffic:
        found = run(ours, axis.rank, empty_rank)
    assert_close(found, expected, atol=1e-9, rtol=1e-9)
    assert traffic.calls["all_to_all"] == 4
    theirs = dict(whole.named_parameters())
    for name, parameter in ours.named_parameters():
        reference, own = theirs[name], slices_of(parameter)
        assert torch.equal(stored_part(parameter), reference[own]), "seeded by global number"
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradient = stored_part(parameter.grad)
        if name.startswith("experts."):
            assert own[0] == slice(axis.rank * 8 // axis.size, (axis.rank + 1) * 8 // axis.size)
        else:
            dist.all_reduce(gradient)
        assert_close(gradient, reference.grad[own], atol=1e-9, rtol=1e-9)


CASES = {
    "dropless": {},
    "RTS with capacity": {"router": {"capacity_factor": 0.7, "top_k": 2}},
    "in order": {"router": {"capacity_factor": 0.5, "drop_policy": DropPolicy.order}},
    "definition": {"backend": BackendChoice.torch, "router": {"top_k": 2}},
    "expert choice": {"choose_by": ChooseBy.expert},
    "swiglu, shared": {
        "activation": Activation.swiglu,
        "shared_ffn_dim": 4,
        "shared_mode": SharedMode.mixed,
    },
}


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_expert_parallel_layer_equals_one_process(num_ranks, case):
    run_ranks(check_layer, num_ranks, CASES[case], None)


@pytest.mark.parametrize("empty_rank", [0, 1])
def test_a_rank_without_tokens_takes_part(empty_rank):
    run_ranks(check_layer, 2, {"router": {"top_k": 2}}, empty_rank)


def test_experts_that_do_not_divide_are_refused():
    config = TransformerConfig(embed_dim=8, attention_heads=2, router=RouterConfig(num_experts=6))
    with pytest.raises(LayoutError, match=r"multiple of expert_parallel_size \(4\), but is 6"):
        Experts(config, Mesh(expert=Axis(size=4)))
