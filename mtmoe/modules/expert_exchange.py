"""Rows to the ranks that own their experts, and back (GShard, arXiv:2006.16668, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtmoe.parallel import deduplicate
from mtmoe.parallel.collectives import (
    RowShares,
    all_to_all,
    exchange_counts,
    gather_rows,
    sum_gradient,
    sum_over,
    take_rows,
)
from mtmoe.parallel.mesh import Mesh


@dataclass(frozen=True)
class Exchange:
    """How many rows go where; made by `plan_exchange`, read by `send_rows` and `return_rows`.

    P is the size of the expert axis, L the experts of this rank, N the rows that it computes.
    """

    send: list[int]  # P numbers: rows to each rank
    recv: list[int]  # P numbers: rows from each rank
    counts: Tensor  # (L,) int64 rows of each expert of this rank, N together
    by_expert: Tensor  # (N,) int64: places of received rows in the order of experts
    num_rows: int  # R: rows of this rank
    shares: RowShares | None = None  # of a tensor group that drops duplicates
    padded: int = 0  # rows of each share among the received ones, then


def plan_exchange(counts: Tensor, mesh: Mesh) -> Exchange:
    """Tell each rank of the expert axis how many rows it will get for each of its experts.

    Collective: every rank of the axis must call it, also one without any token.

    Args:
        counts: (E,) int64 rows of each expert on this rank; rank p owns experts p * L to
            (p + 1) * L - 1.
    """
    going = counts.view(mesh.expert.size, -1)  # (P, L)
    coming = exchange_counts(going, mesh.expert)
    if mesh.deduplicate_tokens and mesh.tensor.size > 1:
        return _plan_with_shares(going, coming, mesh)
    P, L = going.shape
    expert = torch.arange(L, device=counts.device).repeat(P)  # of each (source, expert) segment
    by_expert = expert.repeat_interleave(coming.flatten()).argsort(stable=True)
    send, recv = going.sum(1).tolist(), coming.sum(1).tolist()
    return Exchange(send, recv, coming.sum(0), by_expert, sum(send))


def _plan_with_shares(going: Tensor, coming: Tensor, mesh: Mesh) -> Exchange:
    axis = mesh.tensor
    send, recv = (deduplicate.share_of(n, axis.rank, axis).sum(1).tolist() for n in (going, coming))
    shares = deduplicate.split_rows(going.flatten(), axis)
    place, padded = deduplicate.order_by_expert(coming, axis)
    return Exchange(send, recv, coming.sum(0), place, int(going.sum()), shares, padded)


def send_rows(rows: Tensor, exchange: Exchange, mesh: Mesh) -> Tensor:
    """(R, D) rows in the order of all experts to the (N, D) rows of this rank's experts.

    What follows may be a slice of the experts on each rank of the tensor axis.
    """
    if exchange.shares is None:
        received = all_to_all(rows, exchange.send, exchange.recv, mesh.expert)
        return sum_gradient(received.index_select(0, exchange.by_expert), mesh.tensor)
    own = take_rows(rows, exchange.shares, mesh.tensor)
    received = all_to_all(own, exchange.send, exchange.recv, mesh.expert)
    return deduplicate.gather_for_experts(
        received, exchange.by_expert, exchange.padded, mesh.tensor
    )


def return_rows(rows: Tensor, exchange: Exchange, mesh: Mesh) -> Tensor:
    """The way back of `send_rows`: (N, D) sums' parts to (R, D) outputs."""
    if exchange.shares is None:
        total = sum_over(rows, mesh.tensor)
        by_source = torch.empty_like(exchange.by_expert)
        by_source[exchange.by_expert] = torch.arange(len(by_source), device=rows.device)
        back = total.index_select(0, by_source)
        return all_to_all(back, exchange.recv, exchange.send, mesh.expert)
    num_own = sum(exchange.recv)
    own = deduplicate.scatter_from_experts(
        rows, exchange.by_expert, exchange.padded, num_own, mesh.tensor
    )
    returned = all_to_all(own, exchange.recv, exchange.send, mesh.expert)
    return gather_rows(returned, exchange.shares, mesh.tensor)
