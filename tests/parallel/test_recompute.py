"""Recomputation gives the same gradients, repeats no decision, and sends again only if told to."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo  # checkpointing imports it, which takes seconds: before ranks fork
import torch.distributed as dist

from mtmoe.config import CheckpointActivations, MeshConfig
from mtmoe.parallel.collectives import (
    all_gather,
    all_to_all,
    count_traffic,
    exchange_counts,
    reduce_scatter,
)
from mtmoe.parallel.mesh import ONE_RANK, make_mesh
from mtmoe.parallel.recompute import keep, recompute
from tests.ranks import run_ranks

NONE, FULL, KEEP = CheckpointActivations
SENT_FORWARD = {"all_to_all": 1, "all_gather": 1, "reduce_scatter": 1, "plan": 1}
SENT_BACKWARD = {"all_to_all": 1, "all_gather": 1, "reduce_scatter": 1, "plan": 0}


def check_counts():
    axis = make_mesh(MeshConfig(expert_parallel_size=dist.get_world_size())).expert
    P = axis.size

    def layer(x):
        rows = all_to_all(x.sin(), [2] * P, [2] * P, axis).cos()
        rows = reduce_scatter(all_gather(rows, axis).exp(), axis).sin()
        counts = exchange_counts(torch.full((P, 3), axis.rank), axis)
        assert torch.equal(counts, torch.arange(P).unsqueeze(1).expand(P, 3))
        return rows * counts.sum() * rows

    gradients, calls = {}, {}
    for mode in CheckpointActivations:
        generator = torch.Generator().manual_seed(axis.rank)
        x = torch.randn(2 * P, 3, generator=generator).requires_grad_()
        with count_traffic() as traffic:
            recompute(mode, layer, x).sum().backward()
        gradients[mode], calls[mode] = x.grad, traffic.calls
    for mode in (NONE, KEEP):
        assert calls[mode] == {k: SENT_FORWARD[k] + SENT_BACKWARD[k] for k in SENT_FORWARD}
    assert calls[FULL] == {k: 2 * SENT_FORWARD[k] + SENT_BACKWARD[k] for k in SENT_FORWARD}
    assert torch.equal(gradients[FULL], gradients[NONE])
    assert torch.equal(gradients[KEEP], gradients[NONE])


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_each_collective_is_sent_again_under_full_only(num_ranks):
    run_ranks(check_counts, num_ranks)


@pytest.mark.parametrize("mode", [FULL, KEEP])
def test_what_is_kept_is_the_decision_of_the_first_pass(mode):
    calls = []

    def layer(x):
        calls.append(len(calls))
        choice = keep(torch.tensor([calls[-1]]))  # another one each time
        return x.sin().index_select(0, choice).exp()

    x = torch.tensor([0.3, 0.5], requires_grad=True)
    recompute(mode, layer, x).sum().backward()
    assert calls == [0, 1], "must have been computed twice"
    expected = (x[0].cos() * x[0].sin().exp()).item()
    assert x.grad.tolist() == pytest.approx([expected, 0.0])


@pytest.mark.parametrize(("mode", "num_calls"), [(NONE, 1), (FULL, 2), (KEEP, 2)])
def test_a_function_is_called_again_where_there_is_a_gradient(mode, num_calls):
    calls = []

    def layer(x):
        calls.append(1)
        return x.sin().cos(), None

    x = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        recompute(mode, layer, x)
    assert len(calls) == 1
    calls.clear()
    y, nothing = recompute(mode, layer, x)
    assert nothing is None
    y.sum().backward()
    assert len(calls) == num_calls


def test_keep_copies_and_plans_of_one_rank_cost_nothing():
    x = torch.arange(4)
    assert torch.equal(keep(x), x)
    assert keep(x) is not x
    assert exchange_counts(x, ONE_RANK) is x
