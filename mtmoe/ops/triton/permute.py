"""Tokens to rows in the order of experts, and back, with gradients and without atomics.

Both ways only gather: a row knows its token (`choice`), a token knows its rows (`row`). A choice
without a slot has no row: what lies in the rows behind `counts.sum()` is never read, and their
gradient is 0.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from mtmoe.ops.dispatch import Permutation
from mtmoe.ops.triton.launch import launch

ROWS, COLUMNS = 16, 256  # of the block that one program copies or adds up


def permute(x: Tensor, permutation: Permutation) -> Tensor:
    """(T, D) tokens to (R, D) rows in the order of experts; rows without a slot are 0."""
    out: Tensor = _Permute.apply(  # type: ignore[no-untyped-call]
        x, permutation.choice, permutation.row
    )
    return out


def combine(rows: Tensor, weight: Tensor, permutation: Permutation) -> Tensor:
    """Sum over each token's choices of weight * row; a token without any row gives 0.

    Args:
        rows: (R, D) outputs of the experts.
        weight: (T, K) float32 share of each choice.

    Returns:
        (T, D) in the dtype of `rows`; summed in float32, in the order of the choices.
    """
    out: Tensor = _Combine.apply(  # type: ignore[no-untyped-call]
        rows, weight, permutation.choice, permutation.row
    )
    return out


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, choice: Tensor, row: Tensor) -> Tensor:
        """Compute, and keep what the gradients need."""
        ctx.save_for_backward(row)
        x = x.contiguous()
        R, D = choice.shape[0], x.shape[1]
        rows = x.new_empty(R, D)
        grid = (triton.cdiv(R, ROWS), triton.cdiv(D, COLUMNS))
        launch(
            gather_kernel,
            grid,
            x,
            choice.contiguous(),
            row.contiguous(),
            rows,
            R,
            D,
            K=row.shape[1],
            ROWS=ROWS,
            COLUMNS=COLUMNS,
        )
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients, in the order of `forward`'s arguments."""
        (row,) = ctx.saved_tensors
        return sum_choices(grad, None, row), None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, choice: Tensor, row: Tensor) -> Tensor:
        """Compute, and keep what the gradients need."""
        ctx.save_for_backward(rows, weight, choice, row)
        return sum_choices(rows, weight, row)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients, in the order of `forward`'s arguments."""
        rows, weight, choice, row = ctx.saved_tensors
        R, D = rows.shape
        d_rows = rows.new_empty(R, D)
        d_weight = torch.zeros_like(weight, memory_format=torch.contiguous_format)
        launch(
            combine_gradient_kernel,
            (triton.cdiv(R, ROWS),),
            grad.contiguous(),
            rows.contiguous(),
            weight.contiguous(),
            choice.contiguous(),
            row.contiguous(),
            d_rows,
            d_weight,
            R,
            D,
            K=row.shape[1],
            ROWS=ROWS,
            COLUMNS=COLUMNS,
        )
        return d_rows, d_weight, None, None


def sum_choices(rows: Tensor, weight: Tensor | None, row: Tensor) -> Tensor:
    """(R, D) rows to the sum of each token's rows, (T, D), times `weight` (T, K) if given."""
    T, K = row.shape
    D = rows.shape[1]
    out = rows.new_empty(T, D)
    launch(
        sum_choices_kernel,
        (triton.cdiv(T, ROWS), triton.cdiv(D, COLUMNS)),
        rows.contiguous(),
        None if weight is None else weight.contiguous(),
        row.contiguous(),
        out,
        T,
        D,
        K=K,
        ROWS=ROWS,
        COLUMNS=COLUMNS,
    )
    return out


@triton.jit(do_not_specialize=["R"])  # type: ignore[untyped-decorator]
def gather_kernel(  # noqa: PLR0913
    x_ptr: tl.tensor,
    choice_ptr: tl.tensor,
    row_ptr: tl.tensor,
    out_ptr: tl.tensor,
    R: tl.tensor,
    D: tl.tensor,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Program (i, j) copies columns block j of the tokens of row block i."""
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    choice = tl.load(choice_ptr + r, mask=r < R, other=0)
    has_slot = tl.load(row_ptr + choice, mask=r < R, other=-1) >= 0
    token = (choice // K)[:, None]
    x = tl.load(x_ptr + token * D + column, mask=has_slot[:, None] & (column < D), other=0.0)
    place = r.to(tl.int64)[:, None] * D + column
    tl.store(out_ptr + place, x, mask=(r < R)[:, None] & (column < D))


@triton.jit(do_not_specialize=["T"])  # type: ignore[untyped-decorator]
def sum_choices_kernel(  # noqa: PLR0913
    rows_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    row_ptr: tl.tensor,
    out_ptr: tl.tensor,
    T: tl.tensor,
    D: tl.tensor,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Program (i, j) adds up columns block j of the rows of token block i, choice by choice."""
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    choice = token.to(tl.int64) * K
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for k in tl.static_range(K):
        r = tl.load(row_ptr + choice + k, mask=token < T, other=-1)
        is_part = (r >= 0)[:, None] & (column < D)
        part = tl.load(rows_ptr + r[:, None] * D + column, mask=is_part, other=0.0).to(tl.float32)
        if weight_ptr is not None:
            part *= tl.load(weight_ptr + choice + k, mask=r >= 0, other=0.0)[:, None]
        total += part
    place = token.to(tl.int64)[:, None] * D + column
    tl.store(out_ptr + place, total, mask=(token < T)[:, None] & (column < D))


@triton.jit(do_not_specialize=["R"])  # type: ignore[untyped-decorator]
def combine_gradient_kernel(  # noqa: PLR0913
    grad_ptr: tl.tensor,
    rows_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    choice_ptr: tl.tensor,
    row_ptr: tl.tensor,
    d_rows_ptr: tl.tensor,
    d_weight_ptr: tl.tensor,
    R: tl.tensor,
    D: tl.tensor,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Program i walks through the columns of row block i.

    d_row = weight * grad, d_weight = row . grad; rows without a slot get 0.
    """
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    choice = tl.load(choice_ptr + r, mask=r < R, other=0)
    has_slot = tl.load(row_ptr + choice, mask=r < R, other=-1) >= 0
    weight = tl.load(weight_ptr + choice, mask=has_slot, other=0.0)[:, None]
    grad_ptrs = grad_ptr + (choice // K)[:, None] * D
    place = r.to(tl.int64)[:, None] * D
    d_weight = tl.zeros((ROWS,), tl.float32)
    for begin in range(0, D, COLUMNS):
        column = (begin + tl.arange(0, COLUMNS))[None, :]
        is_read = has_slot[:, None] & (column < D)
        grad = tl.load(grad_ptrs + column, mask=is_read, other=0.0).to(tl.float32)
        row = tl.load(rows_ptr + place + column, mask=is_read, other=0.0).to(tl.float32)
        d_weight += tl.sum(grad * row, axis=1)
        is_written = (r < R)[:, None] & (column < D)
        tl.store(d_rows_ptr + place + column, weight * grad, mask=is_written)
    tl.store(d_weight_ptr + choice, d_weight, mask=has_slot)
