"""Slots and the order of rows by a counting sort; nothing waits for the device.

Three steps: each block of choices ranks its keys among themselves and counts them; a scan over the
blocks tells how many equal keys came before each block; the sum of the two is the place of a choice
among its equals. Integers only, so that the result is the same from run to run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mtmoe.ops.dispatch import Permutation
from mtmoe.ops.routing import DROPPED
from mtmoe.ops.triton.launch import launch

BLOCK = 128  # choices of one program
NO_ROW = tl.constexpr(DROPPED)


def assign_slots(
    expert: Tensor, num_experts: int, capacity: int, priority: Tensor | None = None
) -> Tensor:
    """Give each (token, choice) a slot of its expert, first come, first served.

    Equals `mtmoe.ops.routing.assign_slots`, whose arguments and result it has.
    """
    T, K = expert.shape
    if priority is None:
        order = torch.arange(T, device=expert.device)
    else:
        order = priority.argsort(descending=True, stable=True)
    key = expert[order].t().flatten()  # (K * T,) in the order of arrival
    rank, before = rank_keys(key, num_experts)
    slot = torch.empty(T, K, dtype=torch.int64, device=expert.device)
    grid = (triton.cdiv(T * K, BLOCK),)
    launch(
        slot_kernel,
        grid,
        key,
        rank,
        before,
        order,
        slot,
        T,
        num_experts,
        capacity,
        K=K,
        BLOCK=BLOCK,
    )
    return slot


def sort_by_expert(expert: Tensor, slot: Tensor, num_experts: int) -> Permutation:
    """Order the (token, choice) pairs by expert, equal ones by token.

    Equals `mtmoe.ops.dispatch.sort_by_expert`, but R is T * K, whatever was dropped: the rows of
    choices without a slot come last.

    Args:
        expert: (T, K) int64.
        slot: (T, K) int64; negative where the choice has no slot.
    """
    key = expert.masked_fill(slot < 0, num_experts).flatten()
    rank, before = rank_keys(key, num_experts + 1)
    counts = before[-1].long()
    start = counts.cumsum(0) - counts
    row, choice = torch.empty_like(key), torch.empty_like(key)
    N = key.shape[0]
    grid = (triton.cdiv(N, BLOCK),)
    launch(row_kernel, grid, key, rank, before, start, row, choice, N, num_experts, BLOCK=BLOCK)
    return Permutation(choice, row.view(expert.shape), counts[:num_experts])


def rank_keys(key: Tensor, num_keys: int) -> tuple[Tensor, Tensor]:
    """Rank each key among its equals in its block, and count the equals in the blocks before.

    Args:
        key: (N,) int64, each in [0, num_keys).

    Returns:
        rank (N,) and before (blocks + 1, num_keys), both int32; the last of `before` are totals.
    """
    N = key.shape[0]
    num_blocks = triton.cdiv(N, BLOCK)
    rank = torch.empty(N, dtype=torch.int32, device=key.device)
    count = torch.zeros(num_blocks + 1, num_keys, dtype=torch.int32, device=key.device)
    launch(rank_kernel, (num_blocks,), key, rank, count, N, num_keys, BLOCK=BLOCK, num_warps=8)
    return rank, count.cumsum(0, dtype=torch.int32)


@triton.jit(do_not_specialize=["N"])  # type: ignore[untyped-decorator]
def rank_kernel(
    key_ptr: tl.tensor,
    rank_ptr: tl.tensor,
    count_ptr: tl.tensor,
    N: tl.tensor,
    num_keys: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Program b compares all pairs of its BLOCK keys; the last of its equals knows their number."""
    place = tl.arange(0, BLOCK)
    i = tl.program_id(0) * BLOCK + place
    key = tl.load(key_ptr + i, mask=i < N, other=-1).to(tl.int32)
    is_equal = key[:, None] == key[None, :]
    is_earlier = place[None, :] < place[:, None]
    num_equal = tl.sum(is_equal.to(tl.int32), axis=1)
    rank = tl.sum((is_equal & is_earlier).to(tl.int32), axis=1)
    tl.store(rank_ptr + i, rank, mask=i < N)
    is_last = (rank + 1 == num_equal) & (i < N)
    next_block = tl.program_id(0) + 1
    tl.store(count_ptr + next_block * num_keys + key, num_equal, mask=is_last)


@triton.jit(do_not_specialize=["T", "capacity"])  # type: ignore[untyped-decorator]
def slot_kernel(  # noqa: PLR0913
    key_ptr: tl.tensor,
    rank_ptr: tl.tensor,
    before_ptr: tl.tensor,
    order_ptr: tl.tensor,
    slot_ptr: tl.tensor,
    T: tl.tensor,
    num_keys: tl.tensor,
    capacity: tl.tensor,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Program b writes the slots of the BLOCK choices that arrive as number b * BLOCK and on."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_choice = i < T * K
    slot = place_in_queue(key_ptr, rank_ptr, before_ptr, i, is_choice, num_keys)
    token = tl.load(order_ptr + i % T, mask=is_choice, other=0)
    slot = tl.where(slot < capacity, slot, NO_ROW)
    tl.store(slot_ptr + token * K + i // T, slot, mask=is_choice)


@triton.jit(do_not_specialize=["N"])  # type: ignore[untyped-decorator]
def row_kernel(  # noqa: PLR0913
    key_ptr: tl.tensor,
    rank_ptr: tl.tensor,
    before_ptr: tl.tensor,
    start_ptr: tl.tensor,
    row_ptr: tl.tensor,
    choice_ptr: tl.tensor,
    N: tl.tensor,
    E: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Program b gives rows to choices b * BLOCK and on; key E stands for having no slot."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_choice = i < N
    key = tl.load(key_ptr + i, mask=is_choice, other=0)
    row = tl.load(start_ptr + key, mask=is_choice, other=0)
    row += place_in_queue(key_ptr, rank_ptr, before_ptr, i, is_choice, E + 1)
    tl.store(choice_ptr + row, i, mask=is_choice)
    tl.store(row_ptr + i, tl.where(key < E, row, NO_ROW), mask=is_choice)


@triton.jit  # type: ignore[untyped-decorator]
def place_in_queue(
    key_ptr: tl.tensor,
    rank_ptr: tl.tensor,
    before_ptr: tl.tensor,
    i: tl.tensor,
    is_choice: tl.tensor,
    num_keys: tl.tensor,
) -> tl.tensor:
    """How many equal keys come before choice `i` in its own block and in all blocks before."""
    key = tl.load(key_ptr + i, mask=is_choice, other=0)
    rank = tl.load(rank_ptr + i, mask=is_choice, other=0)
    before = tl.load(before_ptr + tl.program_id(0) * num_keys + key, mask=is_choice, other=0)
    return rank + before
