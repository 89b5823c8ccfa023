"""Rows that travel in two steps arrive as in one, in fewer messages between nodes."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from mtmoe.config import AllToAll, MeshConfig
from mtmoe.errors import LayoutError
from mtmoe.parallel.collectives import count_traffic
from mtmoe.parallel.mesh import make_mesh
from mtmoe.parallel.routes import make_route, tell_counts
from tests.ranks import run_ranks

L, D = 2, 3


def go(mesh, going, x, scale):
    """There, a product, and back: what arrives, what returns, the gradient, and the traffic."""
    x = x.clone().requires_grad_()
    with count_traffic() as traffic:
        told = tell_counts(going, mesh)
        route = make_route(told, mesh)
        there = route.travel(x)
        assert route.num_received == there.shape[0] == int(told.coming.sum())
        back = route.travel_back(there * (1 + mesh.owners.rank))
        (back * scale).sum().backward()
    return (told.coming, there.detach(), back.detach(), x.grad), traffic


def check_two_steps(node_size):
    P, rank = dist.get_world_size(), dist.get_rank()
    generator = torch.Generator().manual_seed(rank)
    going = torch.randint(1, 5, (P, L), generator=generator)
    going[(rank + 1) % P] = 0  # nothing for a neighbour
    x = torch.randn(int(going.sum()), D, generator=generator)
    scale = torch.randn(x.shape, generator=generator)
    flat = MeshConfig(expert_parallel_size=P)
    two = MeshConfig(P, all_to_all=AllToAll.hierarchical, node_size=node_size)
    expected, in_one = go(make_mesh(flat), going, x, scale)
    found, in_two = go(make_mesh(two), going, x, scale)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    num_nodes = P // node_size
    assert between_nodes(in_two, node_size) == 4 * (num_nodes - 1)
    assert between_nodes(in_one, node_size) >= 4 * (P - node_size - 1)
    assert in_two.calls == {"all_to_all": 8, "plan": 2}
    assert in_one.calls == {"all_to_all": 4, "plan": 1}


def between_nodes(traffic, node_size):
    """Messages to ranks of other nodes."""
    node = dist.get_rank() // node_size
    return sum(n for rank, n in traffic.messages.items() if rank // node_size != node)


@pytest.mark.parametrize(("num_ranks", "node_size"), [(4, 2), (6, 3)])
def test_two_steps_give_what_one_gives(num_ranks, node_size):
    run_ranks(check_two_steps, num_ranks, node_size)


def check_nodes_that_do_not_fit():
    with pytest.raises(LayoutError, match=r"multiple of 1 that divides 4, .* but is 3"):
        make_mesh(MeshConfig(4, all_to_all=AllToAll.hierarchical, node_size=3))
    with pytest.raises(LayoutError, match=r"multiple of 2 that divides 4, .* but is 1"):
        make_mesh(MeshConfig(2, 2, all_to_all=AllToAll.hierarchical))
    everything_on_one = MeshConfig(4, all_to_all=AllToAll.hierarchical, node_size=8)
    assert make_mesh(everything_on_one).steps is None


def test_nodes_that_do_not_divide_the_ranks_are_refused():
    run_ranks(check_nodes_that_do_not_fit, 4)
