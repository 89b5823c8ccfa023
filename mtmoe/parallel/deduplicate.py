"""Duplicate token dropping (DeepSpeed-TED, Singh et al. 2023, arXiv:2303.06318, section 4.2).

The ranks of a tensor group hold the same rows. If each sent all of them to the experts, every row
would travel `tensor` times. Here each sends a share, and the owners' tensor group gathers the
shares. Of the n rows that a rank has for one expert, tensor rank t keeps rows t, t + T, t + 2T, ...
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mtmoe.parallel.collectives import RowShares, all_gather, reduce_scatter
from mtmoe.parallel.mesh import Axis


def share_of(counts: Tensor, rank: int, axis: Axis) -> Tensor:
    """How many of `counts` rows tensor rank `rank` keeps; same shape, int64."""
    return (counts + (axis.size - 1 - rank)) // axis.size


def all_shares(counts: Tensor, axis: Axis) -> Tensor:
    """(...) to (T, ...): how many of `counts` rows each tensor rank keeps."""
    return torch.stack([share_of(counts, rank, axis) for rank in range(axis.size)])


def split_rows(counts: Tensor, axis: Axis) -> RowShares:
    """Share out rows in the order of experts.

    Args:
        counts: (E,) int64 rows of each expert, R together.
    """
    segment = torch.arange(counts.shape[0], device=counts.device).repeat_interleave(counts)
    start = counts.cumsum(0) - counts
    R = segment.shape[0]
    owner = (torch.arange(R, device=counts.device) - start[segment]) % axis.size
    padded = int(share_of(counts, 0, axis).sum())
    place = torch.empty_like(owner)
    rows = [(owner == rank).nonzero().squeeze(1) for rank in range(axis.size)]
    for rank, own in enumerate(rows):
        place[own] = torch.arange(own.shape[0], device=own.device) + rank * padded
    return RowShares(rows[axis.rank], place, padded)


def order_by_expert(shares: Tensor) -> tuple[Tensor, int]:
    """Where the received rows of each expert lie, when the shares of all ranks are gathered.

    Args:
        shares: (T, P, L) int64 rows that tensor rank t received of each source for each expert.

    Returns:
        (N,) int64 places in the order of experts, among T parts of `padded` rows; and padded.
    """
    L = shares.shape[2]
    by_segment = shares.flatten(1)  # (T, P * L)
    expert = torch.arange(L, device=shares.device).repeat(shares.shape[1])
    padded = int(by_segment.sum(1).max())
    experts, places = [], []
    for rank, counts in enumerate(by_segment):
        of_share = expert.repeat_interleave(counts)
        experts.append(of_share)
        places.append(torch.arange(of_share.shape[0], device=counts.device) + rank * padded)
    return torch.cat(places)[torch.cat(experts).argsort(stable=True)], padded


def gather_for_experts(rows: Tensor, place: Tensor, padded: int, axis: Axis) -> Tensor:
    """A rank's share of received rows, (n, D), to all received rows in expert order, (N, D)."""
    own = F.pad(rows, (0, 0, 0, padded - rows.shape[0]))
    return all_gather(own, axis).index_select(0, place)


def scatter_from_experts(
    rows: Tensor, place: Tensor, padded: int, num_own: int, axis: Axis
) -> Tensor:
    """Sum what the ranks' slices of the experts make of each row, and keep the own share.

    Args:
        rows: (N, D) partial outputs in the order of experts.

    Returns:
        (num_own, D) in the order in which the share was received.
    """
    shares = rows.new_zeros(axis.size * padded, rows.shape[1]).index_copy(0, place, rows)
    return reduce_scatter(shares, axis)[:num_own]
