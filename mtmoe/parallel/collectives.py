"""Collectives with gradients, as operators that a checkpointing policy sees, and their counts.

An autograd.Function would be invisible to selective activation checkpointing, which then would
send everything again. The backward of each is again a collective of this file.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import (  # type: ignore[attr-defined]
    GroupName,
    _resolve_process_group,
)

from mtmoe.parallel.mesh import Axis


@dataclass
class Traffic:
    """How often each collective ran, and what this rank sent to others."""

    calls: Counter[str] = field(default_factory=Counter)
    sent_bytes: Counter[str] = field(default_factory=Counter)
    messages: Counter[int] = field(default_factory=Counter)  # of all-to-alls, by receiving rank


_listeners: list[Traffic] = []


@contextlib.contextmanager
def count_traffic() -> Iterator[Traffic]:
    """Count the collectives of this process, backward passes included, while it is open."""
    traffic = Traffic()
    _listeners.append(traffic)
    try:
        yield traffic
    finally:
        _listeners.remove(traffic)


def _note(kind: str, sent: int) -> None:
    for traffic in _listeners:
        traffic.calls[kind] += 1
        traffic.sent_bytes[kind] += sent


def _note_messages(send: list[int], group: dist.ProcessGroup) -> None:
    for traffic in _listeners:
        own, ranks = dist.get_rank(), dist.get_process_group_ranks(group)
        sent = (rank for rank, rows in zip(ranks, send, strict=True) if rows and rank != own)
        traffic.messages.update(sent)


def all_to_all(x: Tensor, send: list[int], recv: list[int], axis: Axis) -> Tensor:
    """Send `send[p]` rows of `x` to rank p of the axis, and receive `recv[p]` rows from it.

    Collective in forward and in backward: every rank of the axis must reach both. The gradient
    goes the same way back, with `send` and `recv` swapped.

    Args:
        x: (sum(send), ...) rows, ordered by destination.

    Returns:
        (sum(recv), ...) rows, ordered by source.
    """
    if axis.size == 1:
        return x
    out: Tensor = torch.ops.mtmoe.all_to_all(x, send, recv, axis.name)
    return out


def all_gather(x: Tensor, axis: Axis) -> Tensor:
    """The rows of all ranks of the axis, one after the other; all must have as many.

    Backward: the gradients of all ranks are summed, and each gets the part of its own rows. Use it
    where the ranks then do different work (or slices of the same).

    Args:
        x: (N, ...).

    Returns:
        (size * N, ...)
    """
    if axis.size == 1:
        return x
    out: Tensor = torch.ops.mtmoe.all_gather(x, axis.name, axis.size)
    return out


def reduce_scatter(x: Tensor, axis: Axis) -> Tensor:
    """Sum `x` over the ranks of the axis; each gets one part of the rows. The dual of all_gather.

    Args:
        x: (size * N, ...).

    Returns:
        (N, ...)
    """
    if axis.size == 1:
        return x
    out: Tensor = torch.ops.mtmoe.reduce_scatter(x, axis.name, axis.size)
    return out


def exchange_counts(counts: Tensor, axis: Axis) -> Tensor:
    """Tell each rank of the axis how many rows it will get; counted as "plan".

    Collective, without gradient: every rank of the axis must reach it.

    Args:
        counts: (size, L) int64; row p goes to rank p of the axis.

    Returns:
        (size, L) int64; row p came from rank p.
    """
    if axis.size == 1:
        return counts
    out: Tensor = torch.ops.mtmoe.plan(counts, axis.name)
    return out


def gather_counts(counts: Tensor, axis: Axis) -> Tensor:
    """(...) int64 to (size, ...) of all ranks of the axis, without gradient; counted as "plan".

    Collective: every rank of the axis must reach it.
    """
    if axis.size == 1:
        return counts.unsqueeze(0)
    out: Tensor = torch.ops.mtmoe.gather_counts(counts, axis.name, axis.size)
    return out


def sum_over(x: Tensor, axis: Axis) -> Tensor:
    """The sum of the ranks' `x`; behind work that each rank did a part of (Megatron's g).

    Backward: nothing, since all ranks then compute the same and hold the same gradient.
    """
    if axis.size == 1:
        return x
    out: Tensor = torch.ops.mtmoe.all_reduce(x, axis.name)
    return out


def sum_gradient(x: Tensor, axis: Axis) -> Tensor:
    """`x` itself; in front of work that each rank does a part of (Megatron's f).

    Backward: the gradients of all ranks are summed.
    """
    if axis.size == 1:
        return x
    out: Tensor = _SumGradient.apply(x, axis.name)  # type: ignore[no-untyped-call]
    return out


@dataclass(frozen=True)
class RowShares:
    """Which of R rows, equal on all ranks of an axis, each rank keeps; for the two below."""

    mine: Tensor  # (N,) int64: the rows of this rank
    place: Tensor  # (R,) int64: owner * padded + number among the owner's rows
    padded: int  # the largest N of all ranks


def take_rows(x: Tensor, shares: RowShares, axis: Axis) -> Tensor:
    """This rank's share of rows that all ranks of the axis hold alike.

    Backward: the shares' gradients are gathered, so that all ranks hold the whole again.

    Args:
        x: (R, D), equal on all ranks.

    Returns:
        (N, D)
    """
    out: Tensor = torch.ops.mtmoe.take_rows(
        x, shares.mine, shares.place, shares.padded, axis.name, axis.size
    )
    return out


def gather_rows(x: Tensor, shares: RowShares, axis: Axis) -> Tensor:
    """The dual of `take_rows`: (N, D) to (R, D), behind which all ranks do the same.

    Backward: each rank takes its share of the gradient, which is equal on all ranks. (`all_gather`
    sums, since the ranks do different work behind it.)
    """
    out: Tensor = torch.ops.mtmoe.gather_rows(
        x, shares.mine, shares.place, shares.padded, axis.name, axis.size
    )
    return out


def max_over(x: Tensor, axis: Axis) -> Tensor:
    """The maximum of the ranks' `x`, without gradient."""
    if axis.size == 1:
        return x.detach()
    out: Tensor = torch.ops.mtmoe.max_over(x.detach(), axis.name)
    return out


@torch.library.custom_op("mtmoe::all_to_all", mutates_args=())
def _all_to_all(x: Tensor, send: list[int], recv: list[int], group: str) -> Tensor:
    out, work = exchange_rows(x, send, recv, group, is_async=False)
    assert work is None, "it has been waited for"
    return out


def exchange_rows(
    x: Tensor, send: list[int], recv: list[int], group: str, is_async: bool
) -> tuple[Tensor, dist.Work | None]:
    """The body of an all-to-all operator: `all_to_all` without gradient, counted."""
    out = x.new_empty(sum(recv), *x.shape[1:])
    process_group = _resolve_process_group(GroupName(group))
    own = send[dist.get_rank(process_group)]
    row_bytes = x[:1].numel() * x.element_size() if x.shape[0] else 0
    _note("all_to_all", (sum(send) - own) * row_bytes)
    _note_messages(send, process_group)
    work = dist.all_to_all_single(
        out, x.contiguous(), recv, send, group=process_group, async_op=is_async
    )
    return out, work


@_all_to_all.register_fake
def _(x: Tensor, send: list[int], recv: list[int], group: str) -> Tensor:
    return x.new_empty(sum(recv), *x.shape[1:])


def save_splits(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """What the backward of an all-to-all operator needs."""
    _, ctx.send, ctx.recv, ctx.group = inputs


def _all_to_all_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    return torch.ops.mtmoe.all_to_all(grad, ctx.recv, ctx.send, ctx.group), None, None, None


_all_to_all.register_autograd(_all_to_all_backward, setup_context=save_splits)


@torch.library.custom_op("mtmoe::all_gather", mutates_args=())
def _all_gather(x: Tensor, group: str, size: int) -> Tensor:
    out = x.new_empty(size * x.shape[0], *x.shape[1:])
    _note("all_gather", (size - 1) * x.numel() * x.element_size())
    dist.all_gather_single(out, x.contiguous(), group=_resolve_process_group(GroupName(group)))
    return out


@_all_gather.register_fake
def _(x: Tensor, group: str, size: int) -> Tensor:
    return x.new_empty(size * x.shape[0], *x.shape[1:])


@torch.library.custom_op("mtmoe::reduce_scatter", mutates_args=())
def _reduce_scatter(x: Tensor, group: str, size: int) -> Tensor:
    out = x.new_empty(x.shape[0] // size, *x.shape[1:])
    _note("reduce_scatter", (size - 1) * out.numel() * x.element_size())
    dist.reduce_scatter_single(out, x.contiguous(), group=_resolve_process_group(GroupName(group)))
    return out


@_reduce_scatter.register_fake
def _(x: Tensor, group: str, size: int) -> Tensor:
    return x.new_empty(x.shape[0] // size, *x.shape[1:])


def _save_group(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.group, ctx.size = inputs


def _all_gather_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return torch.ops.mtmoe.reduce_scatter(grad, ctx.group, ctx.size), None, None


def _reduce_scatter_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return torch.ops.mtmoe.all_gather(grad, ctx.group, ctx.size), None, None


_all_gather.register_autograd(_all_gather_backward, setup_context=_save_group)
_reduce_scatter.register_autograd(_reduce_scatter_backward, setup_context=_save_group)


@torch.library.custom_op("mtmoe::plan", mutates_args=())
def _plan(counts: Tensor, group: str) -> Tensor:
    out = torch.empty_like(counts, memory_format=torch.contiguous_format)
    _note("plan", (counts.numel() - counts[0].numel()) * counts.element_size())
    process_group = _resolve_process_group(GroupName(group))
    dist.all_to_all_single(out, counts.contiguous(), group=process_group)
    return out


@_plan.register_fake
def _(counts: Tensor, group: str) -> Tensor:
    return torch.empty_like(counts, memory_format=torch.contiguous_format)


@torch.library.custom_op("mtmoe::gather_counts", mutates_args=())
def _gather_counts(counts: Tensor, group: str, size: int) -> Tensor:
    out = counts.new_empty(size, *counts.shape)
    _note("plan", (size - 1) * counts.numel() * counts.element_size())
    process_group = _resolve_process_group(GroupName(group))
    dist.all_gather_single(out.flatten(), counts.contiguous().flatten(), group=process_group)
    return out


def _ring_bytes(x: Tensor, size: int) -> int:
    """What a rank sends in a ring all-reduce: reduce-scatter, then all-gather."""
    return 2 * (size - 1) * x.numel() * x.element_size() // size


@torch.library.custom_op("mtmoe::all_reduce", mutates_args=())
def _all_reduce(x: Tensor, group: str) -> Tensor:
    out = x.clone(memory_format=torch.contiguous_format)
    process_group = _resolve_process_group(GroupName(group))
    _note("all_reduce", _ring_bytes(out, dist.get_world_size(process_group)))
    dist.all_reduce(out, group=process_group)
    return out


@_all_reduce.register_fake
def _(x: Tensor, group: str) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _all_reduce_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return grad, None


_all_reduce.register_autograd(_all_reduce_backward)


@torch.library.custom_op("mtmoe::max_over", mutates_args=())
def _max_over(x: Tensor, group: str) -> Tensor:
    out = x.clone(memory_format=torch.contiguous_format)
    process_group = _resolve_process_group(GroupName(group))
    _note("all_reduce", _ring_bytes(out, dist.get_world_size(process_group)))
    dist.all_reduce(out, dist.ReduceOp.MAX, group=process_group)
    return out


@_max_over.register_fake
def _(x: Tensor, group: str) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


class _SumGradient(torch.autograd.Function):
    """The identity, which no operator may be: it would return its own input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: str) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return torch.ops.mtmoe.all_reduce(gradients[0], ctx.group), None


@torch.library.custom_op("mtmoe::take_rows", mutates_args=())
def _take_rows(
    x: Tensor, mine: Tensor, place: Tensor, padded: int, group: str, size: int
) -> Tensor:
    return x.index_select(0, mine)


@_take_rows.register_fake
def _(x: Tensor, mine: Tensor, place: Tensor, padded: int, group: str, size: int) -> Tensor:
    return x.new_empty(mine.shape[0], x.shape[1])


@torch.library.custom_op("mtmoe::gather_rows", mutates_args=())
def _gather_rows(
    x: Tensor, mine: Tensor, place: Tensor, padded: int, group: str, size: int
) -> Tensor:
    own = x.new_zeros(padded, x.shape[1])
    own[: x.shape[0]] = x
    out = x.new_empty(size * padded, x.shape[1])
    _note("all_gather", (size - 1) * own.numel() * own.element_size())
    dist.all_gather_single(out, own, group=_resolve_process_group(GroupName(group)))
    return out.index_select(0, place)


@_gather_rows.register_fake
def _(x: Tensor, mine: Tensor, place: Tensor, padded: int, group: str, size: int) -> Tensor:
    return x.new_empty(place.shape[0], x.shape[1])


def _save_shares(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, *ctx.shares = inputs


def _take_rows_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.mtmoe.gather_rows(grad, *ctx.shares), None, None, None, None, None


def _gather_rows_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.mtmoe.take_rows(grad, *ctx.shares), None, None, None, None, None


_take_rows.register_autograd(_take_rows_backward, setup_context=_save_shares)
_gather_rows.register_autograd(_gather_rows_backward, setup_context=_save_shares)
