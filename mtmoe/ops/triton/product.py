"""The inner loop that all grouped products share."""

from __future__ import annotations

import triton
import triton.language as tl

IS_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit  # type: ignore[untyped-decorator]
def add_product(
    total: tl.tensor,
    x_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    sizes: tl.tuple,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> tl.tensor:
    """`total` + x @ weight for one tile, DEPTH of the summed dimension at a time.

    Args:
        total: (ROWS, COLUMNS) float32.
        x_ptr: the first row of the tile; the numbers of a row are adjacent.
        weight_ptr: the weight of the tile's expert.
        sizes: number of rows that exist in the tile (others are not read); (COLUMNS,) columns of
            this program; length of the summed dimension (0: nothing is added); number of columns
            that exist; strides of x by row, and of the weight by depth and column.
    """
    num_rows, column, depth, num_columns, x_stride, depth_stride, column_stride = sizes
    row = tl.arange(0, ROWS)[:, None]
    step = tl.arange(0, DEPTH)
    x_ptrs = x_ptr + row * x_stride + step[None, :]
    weight_ptrs = weight_ptr + step[:, None] * depth_stride + column[None, :] * column_stride
    is_row = row < num_rows
    is_column = column[None, :] < num_columns
    for begin in range(0, depth, DEPTH):
        is_step = step < depth - begin
        x = tl.load(x_ptrs, mask=is_row & is_step[None, :], other=0.0)
        weight = tl.load(weight_ptrs, mask=is_step[:, None] & is_column, other=0.0)
        total = multiply(x, weight, total)
        x_ptrs += DEPTH
        weight_ptrs += DEPTH * depth_stride
    return total


@triton.jit  # type: ignore[untyped-decorator]
def multiply(a: tl.tensor, b: tl.tensor, total: tl.tensor) -> tl.tensor:
    """`total` + a @ b in float32, without TF32; the interpreter cannot multiply bfloat16 itself."""
    if IS_INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")
