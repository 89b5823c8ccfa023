"""Rows to the ranks that own their experts, and back (GShard, arXiv:2006.16668, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtmoe.parallel import deduplicate
from mtmoe.parallel.collectives import (
    RowShares,
    gather_counts,
    gather_rows,
    sum_gradient,
    sum_over,
    take_rows,
)
from mtmoe.parallel.mesh import Mesh
from mtmoe.parallel.routes import Counts, Route, inverse, make_route, tell_counts


@dataclass(frozen=True)
class Exchange:
    """How many rows go where; made by `plan_exchange`, read by the three functions below.

    L counts the experts of this rank, N the rows that it computes. The ranks of a tensor group hold
    the same R rows, and send all of them or, with `shares`, each a part; or each holds rows of its
    own. What slices of the same experts received of different rows, they gather.
    """

    route: Route
    counts: Tensor  # (L,) int64 rows of each expert of this rank, N together
    by_expert: Tensor  # (N,) int64: places of received rows in the order of experts
    num_rows: int  # R: rows of this rank
    shares: RowShares | None = None
    padded: int | None = None  # rows of each part of what slices gather; None: they do not


def plan_exchange(counts: Tensor, mesh: Mesh) -> Exchange:
    """Tell each owner how many rows it will get for each of its experts.

    Collective: every rank of the axis must call it, also one without any token.

    Args:
        counts: (E,) int64 rows of each expert on this rank; owner p has experts p * L to
            (p + 1) * L - 1.
    """
    tensor = mesh.tensor
    is_shared = mesh.deduplicate_tokens and tensor.size > 1
    shares = deduplicate.split_rows(counts, tensor) if is_shared else None
    going = counts.view(mesh.owners.size, -1)  # (P, L)
    if is_shared and mesh.joint is not None:
        going = deduplicate.share_of(going, tensor.rank, tensor)
    told = tell_counts(going, mesh)
    arriving = _of_each_slice(told.coming, mesh)
    if is_shared and mesh.joint is None:
        told = _own_share(told, mesh)
    route = make_route(told, mesh)
    num_rows = sum(route.legs[0].send) if shares is None else shares.place.shape[0]
    if arriving is None:
        by_expert = _order_by_expert(told.coming)
        return Exchange(route, told.coming.sum(0), by_expert, num_rows, shares)
    place, padded = deduplicate.order_by_expert(arriving)
    return Exchange(route, arriving.sum((0, 1)), place, num_rows, shares, padded)


def _of_each_slice(coming: Tensor, mesh: Mesh) -> Tensor | None:
    """(T, P, L) rows that come to each slice of the same experts; None: the same come to all."""
    if mesh.slices.size == 1:
        return None
    if mesh.shard_tokens:
        return gather_counts(coming, mesh.slices)
    return deduplicate.all_shares(coming, mesh.slices) if mesh.deduplicate_tokens else None


def _own_share(told: Counts, mesh: Mesh) -> Counts:
    going, passing, coming = (
        n if n is None else deduplicate.share_of(n, mesh.tensor.rank, mesh.tensor)
        for n in (told.going, told.passing, told.coming)
    )
    assert going is not None
    assert coming is not None
    return Counts(going, passing, coming)


def _order_by_expert(coming: Tensor) -> Tensor:
    P, L = coming.shape
    expert = torch.arange(L, device=coming.device).repeat(P)  # of each (source, expert) segment
    return expert.repeat_interleave(coming.flatten()).argsort(stable=True)


def send_rows(rows: Tensor, exchange: Exchange, mesh: Mesh) -> Tensor:
    """Send (R, D) rows, in the order of all experts; `receive_rows` takes what it returns.

    What is computed in between is computed while the rows are under way.
    """
    own = rows if exchange.shares is None else take_rows(rows, exchange.shares, mesh.tensor)
    return exchange.route.depart(own)


def receive_rows(under_way: Tensor, exchange: Exchange, mesh: Mesh) -> Tensor:
    """The (N, D) rows of this rank's experts.

    What follows may be a slice of the experts on each rank of the tensor axis.
    """
    received = exchange.route.arrive(under_way)
    if exchange.padded is None:
        return sum_gradient(received.index_select(0, exchange.by_expert), mesh.slices)
    place, padded = exchange.by_expert, exchange.padded
    return deduplicate.gather_for_experts(received, place, padded, mesh.slices)


def return_rows(rows: Tensor, exchange: Exchange, mesh: Mesh) -> Tensor:
    """The way back: (N, D) outputs, or parts of sums, to (R, D) outputs."""
    if exchange.padded is None:
        own = sum_over(rows, mesh.slices).index_select(0, inverse(exchange.by_expert))
    else:
        place, num_own = exchange.by_expert, exchange.route.num_received
        own = deduplicate.scatter_from_experts(rows, place, exchange.padded, num_own, mesh.slices)
    back = exchange.route.travel_back(own)
    return back if exchange.shares is None else gather_rows(back, exchange.shares, mesh.tensor)
