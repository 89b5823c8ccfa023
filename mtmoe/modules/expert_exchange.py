"""Rows to the ranks that own their experts, and back (GShard, arXiv:2006.16668, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtmoe.parallel.collectives import all_to_all, exchange_counts
from mtmoe.parallel.mesh import Axis


@dataclass(frozen=True)
class Exchange:
    """How many rows go where; made by `plan_exchange`, read by `send_rows` and `return_rows`.

    P is the size of the expert axis, L the experts of this rank, N the rows that it receives.
    """

    send: list[int]  # P numbers: rows to each rank
    recv: list[int]  # P numbers: rows from each rank
    counts: Tensor  # (L,) int64 received rows of each expert of this rank
    by_expert: Tensor  # (N,) int64: received rows in the order of experts, then of ranks
    by_source: Tensor  # (N,) int64: its inverse


def plan_exchange(counts: Tensor, axis: Axis) -> Exchange:
    """Tell each rank of the axis how many rows it will get for each of its experts.

    Collective: every rank of the axis must call it, also one without any token.

    Args:
        counts: (E,) int64 rows of each expert on this rank; rank p owns experts p * L to
            (p + 1) * L - 1.
    """
    P = axis.size
    going = counts.view(P, -1)  # (P, L)
    coming = exchange_counts(going, axis)
    L = going.shape[1]
    expert = torch.arange(L, device=counts.device).repeat(P)  # of each (source, expert) segment
    by_expert = expert.repeat_interleave(coming.flatten()).argsort(stable=True)
    by_source = torch.empty_like(by_expert)
    by_source[by_expert] = torch.arange(by_expert.shape[0], device=counts.device)
    send, recv = going.sum(1).tolist(), coming.sum(1).tolist()
    return Exchange(send, recv, coming.sum(0), by_expert, by_source)


def send_rows(rows: Tensor, exchange: Exchange, axis: Axis) -> Tensor:
    """(R, D) rows in the order of all experts to the (N, D) rows of this rank's experts."""
    received = all_to_all(rows, exchange.send, exchange.recv, axis)
    return received.index_select(0, exchange.by_expert)


def return_rows(rows: Tensor, exchange: Exchange, axis: Axis) -> Tensor:
    """The way back of `send_rows`: (N, D) to (R, D)."""
    return all_to_all(rows.index_select(0, exchange.by_source), exchange.recv, exchange.send, axis)
