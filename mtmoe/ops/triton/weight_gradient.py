"""Gradients of the experts' weights and biases: sums over the rows of each expert.

Each number is summed by one program, in the order of the rows, in float32: results are equal from
run to run. An expert without rows gets 0.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mtmoe.ops.triton.blocks import weight_gradient_blocks
from mtmoe.ops.triton.launch import launch
from mtmoe.ops.triton.product import multiply
from mtmoe.ops.triton.tiles import TileMap

BIAS_ROWS, BIAS_COLUMNS = 64, 64


def weight_gradient(rows: Tensor, grad: Tensor, tiles: TileMap, dtype: torch.dtype) -> Tensor:
    """rows^T @ grad over the rows of each expert.

    Args:
        rows: (R, A) contiguous inputs of a grouped product.
        grad: (R, B) contiguous gradient of its outputs.
        dtype: of the result: float32 sums are not rounded on the way to float32 weights.

    Returns:
        (E, A, B)
    """
    A, B = rows.shape[1], grad.shape[1]
    out = rows.new_empty(tiles.num_experts, A, B, dtype=dtype)
    blocks = weight_gradient_blocks(rows, grad)
    grid = (triton.cdiv(A, blocks.rows), triton.cdiv(B, blocks.columns), tiles.num_experts)
    launch(weight_gradient_kernel, grid, rows, grad, out, tiles.start, A, B, **blocks.arguments)
    return out


def bias_gradient(grad: Tensor, tiles: TileMap, dtype: torch.dtype) -> Tensor:
    """The sum of `grad`, (R, B) contiguous, over the rows of each expert: (E, B)."""
    B = grad.shape[1]
    out = grad.new_empty(tiles.num_experts, B, dtype=dtype)
    grid = (triton.cdiv(B, BIAS_COLUMNS), tiles.num_experts)
    launch(
        bias_gradient_kernel,
        grid,
        grad,
        out,
        tiles.start,
        B,
        ROWS=BIAS_ROWS,
        COLUMNS=BIAS_COLUMNS,
    )
    return out


@triton.jit  # type: ignore[untyped-decorator]
def weight_gradient_kernel(  # noqa: PLR0913
    x_ptr: tl.tensor,
    grad_ptr: tl.tensor,
    out_ptr: tl.tensor,
    start_ptr: tl.tensor,
    A: tl.tensor,
    B: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """Program (i, j, e) computes block (i, j) of expert e's weight, DEPTH rows of x at a time.

    The programs of one expert run together, so that its rows come from memory once.
    """
    expert = tl.program_id(2)
    begin = tl.load(start_ptr + expert)
    num_rows = tl.load(start_ptr + expert + 1) - begin
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    j = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.arange(0, DEPTH)
    x_ptrs = x_ptr + begin.to(tl.int64) * A + row[None, :] * A + i[:, None]
    grad_ptrs = grad_ptr + begin.to(tl.int64) * B + row[:, None] * B + j[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for done in range(0, num_rows, DEPTH):
        is_row = row < num_rows - done
        x = tl.load(x_ptrs, mask=(i < A)[:, None] & is_row[None, :], other=0.0)
        grad = tl.load(grad_ptrs, mask=is_row[:, None] & (j < B)[None, :], other=0.0)
        total = multiply(x, grad, total)
        x_ptrs += DEPTH * A
        grad_ptrs += DEPTH * B
    out_ptrs = out_ptr + expert.to(tl.int64) * A * B + i[:, None] * B + j[None, :]
    tl.store(out_ptrs, total, mask=(i < A)[:, None] & (j < B)[None, :])


@triton.jit  # type: ignore[untyped-decorator]
def bias_gradient_kernel(
    grad_ptr: tl.tensor,
    out_ptr: tl.tensor,
    start_ptr: tl.tensor,
    B: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Program (j, e) sums columns block j over the rows of expert e, ROWS of them at a time."""
    expert = tl.program_id(1)
    begin = tl.load(start_ptr + expert)
    num_rows = tl.load(start_ptr + expert + 1) - begin
    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.arange(0, ROWS)
    grad_ptrs = grad_ptr + begin.to(tl.int64) * B + row[:, None] * B + j[None, :]
    total = tl.zeros((COLUMNS,), tl.float32)
    for done in range(0, num_rows, ROWS):
        is_grad = (row < num_rows - done)[:, None] & (j < B)[None, :]
        grad = tl.load(grad_ptrs, mask=is_grad, other=0.0).to(tl.float32)
        total += tl.sum(grad, axis=0)
        grad_ptrs += ROWS * B
    tl.store(out_ptr + expert * B + j, total, mask=j < B)
