"""Slots and the order of rows by counting; nothing waits for the device.

A GPU takes far less time for either than its host for starting a kernel: each is one kernel, in
which the program of an expert walks through all choices and numbers its own. Integers only, so that
the result is the same from run to run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mtmoe.ops.dispatch import Permutation
from mtmoe.ops.routing import DROPPED
from mtmoe.ops.triton.launch import launch

BLOCK = 1024  # choices that a program reads in one step
NO_ROW = tl.constexpr(DROPPED)


def assign_slots(
    expert: Tensor, num_experts: int, capacity: int, priority: Tensor | None = None
) -> Tensor:
    """Give each (token, choice) a slot of its expert, first come, first served.

    Equals `mtmoe.ops.routing.assign_slots`, whose arguments and result it has.
    """
    T, K = expert.shape
    order = None if priority is None else priority.argsort(descending=True, stable=True)
    slot = torch.empty(T, K, dtype=torch.int64, device=expert.device)
    launch(
        slot_kernel,
        (num_experts,),
        expert.contiguous(),
        order,
        slot,
        T,
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
    row = torch.empty(expert.shape, dtype=torch.int64, device=expert.device)
    choice, counts = row.new_empty(row.numel()), row.new_empty(num_experts)
    launch(
        row_kernel,
        (num_experts + 1,),
        expert.contiguous(),
        slot.contiguous(),
        row,
        choice,
        counts,
        row.numel(),
        num_experts,
        BLOCK=BLOCK,
    )
    return Permutation(choice, row, counts)


@triton.jit(do_not_specialize=["T", "capacity"])  # type: ignore[untyped-decorator]
def slot_kernel(
    expert_ptr: tl.tensor,
    order_ptr: tl.tensor,
    slot_ptr: tl.tensor,
    T: tl.tensor,
    capacity: tl.tensor,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Program e numbers the choices of expert e in the order of arrival: all first ones first."""
    num_own = 0
    for begin in range(0, T * K, BLOCK):
        i = begin + tl.arange(0, BLOCK)
        is_choice = i < T * K
        token = i % T
        if order_ptr is not None:
            token = tl.load(order_ptr + token, mask=is_choice, other=0)
        place = token * K + i // T
        expert = tl.load(expert_ptr + place, mask=is_choice, other=-1)
        is_own = expert == tl.program_id(0)
        number = tl.cumsum(is_own.to(tl.int32), 0)
        slot = num_own + number - 1
        tl.store(slot_ptr + place, tl.where(slot < capacity, slot, NO_ROW), mask=is_own)
        num_own += tl.max(number, 0)


@triton.jit(do_not_specialize=["N"])  # type: ignore[untyped-decorator]
def row_kernel(  # noqa: PLR0913
    expert_ptr: tl.tensor,
    slot_ptr: tl.tensor,
    row_ptr: tl.tensor,
    choice_ptr: tl.tensor,
    counts_ptr: tl.tensor,
    N: tl.tensor,
    E: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Program e gives rows to the choices of expert e, behind those of experts before it.

    Program E gives the last rows to choices without a slot, which have no way back to them.
    """
    own = tl.program_id(0)
    first = 0
    for begin in range(0, N, BLOCK):
        key = load_key(expert_ptr, slot_ptr, begin + tl.arange(0, BLOCK), N, E)
        first += tl.sum((key < own).to(tl.int32), 0)
    end = first
    for begin in range(0, N, BLOCK):
        i = begin + tl.arange(0, BLOCK)
        is_own = load_key(expert_ptr, slot_ptr, i, N, E) == own
        number = tl.cumsum(is_own.to(tl.int32), 0)
        row = (end + number - 1).to(tl.int64)
        tl.store(choice_ptr + row, i, mask=is_own)
        tl.store(row_ptr + i, tl.where(own < E, row, NO_ROW), mask=is_own)
        end += tl.max(number, 0)
    tl.store(counts_ptr + own, end - first, mask=own < E)


@triton.jit  # type: ignore[untyped-decorator]
def load_key(
    expert_ptr: tl.tensor, slot_ptr: tl.tensor, i: tl.tensor, N: tl.tensor, E: tl.tensor
) -> tl.tensor:
    """The expert of choice `i`; E where it has no slot, E + 1 where there is no choice."""
    is_choice = i < N
    expert = tl.load(expert_ptr + i, mask=is_choice, other=0).to(tl.int32)
    slot = tl.load(slot_ptr + i, mask=is_choice, other=0)
    return tl.where(is_choice, tl.where(slot < 0, E, expert), E + 1)
