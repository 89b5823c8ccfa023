"""The way of rows to the ranks that own their experts: in one step, or in nodes and then between.

In one step, each rank sends a message to every other one. In two (Nie et al. 2022,
arXiv:2203.14685), rank m of a node first collects what the ranks of its node send to the ranks m of
all nodes; then the ranks m exchange that. A node of g ranks thus sends 1/g as many messages, g
times as large, to another one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtmoe.parallel.collectives import all_to_all, exchange_counts
from mtmoe.parallel.mesh import Axis, Mesh
from mtmoe.parallel.under_way import finish_all_to_all, start_all_to_all


@dataclass(frozen=True)
class Leg:
    """One all-to-all of a route."""

    axis: Axis
    send: list[int]  # rows to each rank of the axis
    recv: list[int]  # rows from each
    order: Tensor | None = None  # (sum(send),) int64: how rows must lie before they are sent

    def line_up(self, rows: Tensor) -> Tensor:
        """The rows in the order in which they are sent."""
        return rows if self.order is None else rows.index_select(0, self.order)


@dataclass(frozen=True)
class Route:
    """All-to-alls, one after the other, that bring rows to their owners; made by `make_route`."""

    legs: tuple[Leg, ...]

    @property
    def num_received(self) -> int:
        """Rows that arrive here."""
        return sum(self.legs[-1].recv)

    def travel(self, rows: Tensor) -> Tensor:
        """(R, D) rows ordered by owner to the rows for this rank, ordered by source.

        Collective, as `travel_back`: every owner must call it, forward and backward.
        """
        return self.arrive(self.depart(rows))

    def depart(self, rows: Tensor) -> Tensor:
        """The first half of `travel`: returns while rows are on the last leg."""
        for leg in self.legs[:-1]:
            rows = all_to_all(leg.line_up(rows), leg.send, leg.recv, leg.axis)
        last = self.legs[-1]
        return start_all_to_all(last.line_up(rows), last.send, last.recv, last.axis)

    def arrive(self, under_way: Tensor) -> Tensor:
        """The second half of `travel`: waits for what `depart` sent."""
        last = self.legs[-1]
        return finish_all_to_all(under_way, last.send, last.recv, last.axis)

    def travel_back(self, rows: Tensor) -> Tensor:
        """The inverse of `travel`."""
        for leg in reversed(self.legs):
            rows = all_to_all(rows, leg.recv, leg.send, leg.axis)
            rows = rows if leg.order is None else rows.index_select(0, inverse(leg.order))
        return rows


@dataclass(frozen=True)
class Counts:
    """Rows on their way, by expert of their owner; P owners of L experts each.

    With two steps, a node has g ranks, and there are P / g nodes.
    """

    going: Tensor  # (P, L) int64 from this rank to each owner
    passing: (
        Tensor | None
    )  # (g, P / g, L): from each rank of the node, over this rank, to each node
    coming: Tensor  # (P, L) from each rank to this one


def tell_counts(going: Tensor, mesh: Mesh) -> Counts:
    """Tell the owners how many rows they will get. Collective, as `exchange_counts`.

    Args:
        going: (P, L) int64.
    """
    if mesh.steps is None:
        return Counts(going, None, exchange_counts(going, mesh.owners))
    node, across = mesh.steps
    L = going.shape[1]
    by_place = going.view(across.size, node.size, L).transpose(0, 1)  # (g, P / g, L)
    passing = exchange_counts(by_place.flatten(1), node).view(by_place.shape)
    coming = exchange_counts(passing.transpose(0, 1).flatten(1), across)  # (P / g, g * L)
    return Counts(going, passing, coming.view(-1, L))


def make_route(counts: Counts, mesh: Mesh) -> Route:
    """The route of rows that lie in the order of owners."""
    going, coming = counts.going.sum(1), counts.coming.sum(1)  # (P,) each
    if counts.passing is None:
        return Route((Leg(mesh.owners, going.tolist(), coming.tolist()),))
    assert mesh.steps is not None, "what passes is told in two steps"
    node, across = mesh.steps
    going, coming = going.view(across.size, node.size), coming.view(across.size, node.size)
    passing = counts.passing.sum(2)  # (g, P / g)
    first = Leg(node, going.sum(0).tolist(), passing.sum(1).tolist(), _transposed(going))
    last = Leg(across, passing.sum(0).tolist(), coming.sum(1).tolist(), _transposed(passing))
    return Route((first, last))


def _transposed(counts: Tensor) -> Tensor:
    """Rows that lie in the order of (a, b), `counts` of each, in the order of (b, a)."""
    A, B = counts.shape
    second = torch.arange(B, device=counts.device).repeat(A)
    return second.repeat_interleave(counts.flatten()).argsort(stable=True)


def inverse(order: Tensor) -> Tensor:
    """The permutation that undoes `order`, (N,) int64."""
    undo = torch.empty_like(order)
    undo[order] = torch.arange(len(order), device=order.device)
    return undo
