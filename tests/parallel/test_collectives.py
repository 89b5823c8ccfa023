"""Collectives equal their definitions, gradients included, are counted, and seen by policies."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.distributed as dist
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from mtmoe.config import MeshConfig
from mtmoe.parallel.collectives import all_gather, all_to_all, count_traffic, reduce_scatter
from mtmoe.parallel.mesh import Axis, make_mesh
from tests.ranks import run_ranks


def rows_of(rank, num_rows=6):
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(num_rows, 3, dtype=torch.float64, generator=generator)


def sent_to(source, target, size):
    """Rows that `source` sends to `target`: uneven, and none to some."""
    return (source + 2 * target) % (size + 1)


def check_all_to_all():
    axis = make_mesh(MeshConfig(expert_parallel_size=dist.get_world_size())).expert
    size, me = axis.size, axis.rank
    send = [sent_to(me, p, size) for p in range(size)]
    recv = [sent_to(p, me, size) for p in range(size)]
    x = rows_of(me, sum(send)).requires_grad_()
    with count_traffic() as traffic:
        y = all_to_all(x, send, recv, axis)
        expected = []
        for p in range(size):
            theirs = [sent_to(p, q, size) for q in range(size)]
            start = sum(theirs[:me])
            expected.append(rows_of(p, sum(theirs))[start : start + theirs[me]])
        assert torch.equal(y, torch.cat(expected))
        scale = rows_of(100 + me, sum(recv))
        y.backward(scale.t().contiguous().t())  # not contiguous: must not be permuted
    back = []
    for p in range(size):
        got = [sent_to(q, p, size) for q in range(size)]
        start = sum(got[:me])
        back.append(rows_of(100 + p, sum(got))[start : start + got[me]])
    assert torch.equal(x.grad, torch.cat(back))
    assert traffic.calls["all_to_all"] == 2
    rows = sum(send) - send[me] + sum(recv) - recv[me]
    assert traffic.sent_bytes["all_to_all"] == rows * 3 * 8


def check_gather_and_scatter():
    axis = make_mesh(MeshConfig(tensor_parallel_size=dist.get_world_size())).tensor
    size, me = axis.size, axis.rank
    x = rows_of(me).requires_grad_()
    y = all_gather(x, axis)
    assert torch.equal(y, torch.cat([rows_of(p) for p in range(size)]))
    y.backward(rows_of(50 + me, 6 * size))
    total = sum(rows_of(50 + p, 6 * size) for p in range(size))
    torch.testing.assert_close(x.grad, total[6 * me : 6 * me + 6])

    wide = rows_of(me, 6 * size).requires_grad_()
    z = reduce_scatter(wide, axis)
    total = sum(rows_of(p, 6 * size) for p in range(size))
    torch.testing.assert_close(z, total[6 * me : 6 * me + 6])
    z.backward(rows_of(70 + me))
    assert torch.equal(wide.grad, torch.cat([rows_of(70 + p) for p in range(size)]))


def save_collectives(context, operator, *args, **kwargs):
    is_ours = operator is torch.ops.mtmoe.all_to_all.default
    return CheckpointPolicy.MUST_SAVE if is_ours else CheckpointPolicy.PREFER_RECOMPUTE


def check_policy_sees_collectives():
    axis = make_mesh(MeshConfig(expert_parallel_size=2)).expert

    def layer(x):
        there = all_to_all(x.sin(), [3, 3], [3, 3], axis)
        return all_to_all(there.cos(), [3, 3], [3, 3], axis).sin()

    policy = functools.partial(create_selective_checkpoint_contexts, save_collectives)
    gradients, calls = [], []
    for options in (None, {}, {"context_fn": policy}):
        x = rows_of(axis.rank).requires_grad_()
        with count_traffic() as traffic:
            y = (
                layer(x)
                if options is None
                else checkpoint(layer, x, use_reentrant=False, **options)
            )
            y.sum().backward()
        gradients.append(x.grad)
        calls.append(traffic.calls["all_to_all"])
    assert calls[0] == 4
    assert calls[1] > 4, "plain checkpointing sends again"
    assert calls[2] == 4, "the policy keeps what was received"
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


@pytest.mark.parametrize("num_ranks", [2, 3, 4])
def test_all_to_all_equals_its_definition_and_is_counted(num_ranks):
    run_ranks(check_all_to_all, num_ranks)


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_all_gather_and_reduce_scatter_are_each_others_gradient(num_ranks):
    run_ranks(check_gather_and_scatter, num_ranks)


def test_checkpointing_policy_sees_the_collectives():
    run_ranks(check_policy_sees_collectives, 2)


def test_an_axis_of_one_changes_nothing():
    x = rows_of(0)
    assert all_to_all(x, [6], [6], Axis()) is x
    assert all_gather(x, Axis()) is x
    assert reduce_scatter(x, Axis()) is x
