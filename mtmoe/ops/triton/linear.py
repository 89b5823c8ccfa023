"""Grouped matrix products: each tile of rows times the weight of its expert.

Consecutive programs take the columns of one row tile, then the next tile, which mostly is of the
same expert. The rows thus come from memory once, and so does each weight, as long as the L2 cache
holds the matrix of one expert.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mtmoe.ops.triton.activation import activate
from mtmoe.ops.triton.blocks import product_blocks, readable
from mtmoe.ops.triton.launch import launch
from mtmoe.ops.triton.product import add_product
from mtmoe.ops.triton.tiles import TileMap, load_tile


def grouped_linear(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tiles: TileMap,
    activation: str = "none",
    keeps_input: bool = False,
    second: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """activation(rows @ weight[e] + bias[e]), e being the expert of each row.

    Args:
        rows: (R, A) contiguous, the rows of expert 0 first.
        weight: (E, A, B) with any strides: a transposed view costs nothing in half precision.
        bias: (E, B) contiguous, or none.
        activation: none, relu or gelu.
        keeps_input: whether to return what the activation was given, too.
        second: further rows and weight, of the same shapes and strides; their product is added.

    Returns:
        (R, B), 0 in rows that no expert computes; and the activation's input, (R, B), or None.
    """
    A, B = weight.shape[1:]
    out = rows.new_empty(rows.shape[0], B)
    kept = torch.empty_like(out) if keeps_input else None
    weight = readable(weight)
    rows2, weight2 = (second[0], readable(second[1])) if second else (None, None)
    assert weight2 is None or weight2.stride() == weight.stride()
    num_live = 2 if second and rows.dtype == torch.float32 else 1  # addresses need registers, too
    blocks = product_blocks(rows, weight, tiles.rows_per_tile, num_live)
    launch(
        linear_kernel,
        (triton.cdiv(B, blocks.columns), tiles.num_tiles),
        rows,
        weight,
        rows2,
        weight2,
        bias,
        out,
        kept,
        tiles.tile,
        tiles.num_experts,
        A,
        B,
        *weight.stride(),
        ACTIVATION=activation,
        **blocks.arguments,
    )
    return out, kept


@triton.jit  # type: ignore[untyped-decorator]
def linear_kernel(  # noqa: PLR0913
    x_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    x2_ptr: tl.tensor,
    weight2_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    out_ptr: tl.tensor,
    kept_ptr: tl.tensor,
    tile_ptr: tl.tensor,
    E: tl.tensor,
    A: tl.tensor,
    B: tl.tensor,
    expert_stride: tl.tensor,
    depth_stride: tl.tensor,
    column_stride: tl.tensor,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """Program (j, i) computes row tile i times columns block j; tiles without an expert get 0."""
    expert, first_row, num_rows = load_tile(tile_ptr, tl.program_id(1))
    if num_rows == 0:
        return
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.where(expert < E, A, 0)
    x_place = first_row * A
    weight_place = expert.to(tl.int64) * expert_stride
    sizes = (num_rows, column, depth, B, A, depth_stride, column_stride)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    total = add_product(total, x_ptr + x_place, weight_ptr + weight_place, sizes, ROWS, DEPTH)
    if x2_ptr is not None:
        total = add_product(total, x2_ptr + x_place, weight2_ptr + weight_place, sizes, ROWS, DEPTH)
    if bias_ptr is not None:
        is_bias = column < tl.where(expert < E, B, 0)
        total += tl.load(bias_ptr + expert * B + column, mask=is_bias, other=0.0)[None, :]
    row = tl.arange(0, ROWS)[:, None]
    place = first_row * B + row * B + column[None, :]
    is_place = (row < num_rows) & (column[None, :] < B)
    if kept_ptr is not None:
        tl.store(kept_ptr + place, total, mask=is_place)
    tl.store(out_ptr + place, activate(total, ACTIVATION), mask=is_place)
