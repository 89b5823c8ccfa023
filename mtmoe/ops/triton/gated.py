"""SwiGLU's hidden numbers, silu(x @ w_gate) * (x @ w_in + b_in) (Shazeer 2020, 2002.05202)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mtmoe.ops.triton.activation import sigmoid
from mtmoe.ops.triton.blocks import product_blocks
from mtmoe.ops.triton.launch import launch
from mtmoe.ops.triton.product import add_product
from mtmoe.ops.triton.tiles import TileMap, load_tile


def grouped_gate(
    rows: Tensor, w_gate: Tensor, w_in: Tensor, b_in: Tensor, tiles: TileMap, keeps_input: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The hidden numbers of SwiGLU, with the weights of each row's expert.

    Args:
        rows: (R, D) contiguous, the rows of expert 0 first.
        w_gate: (E, D, F) contiguous, as `w_in`.
        b_in: (E, F) contiguous.
        keeps_input: whether to return what the product of the two was made of, too.

    Returns:
        (R, F), 0 in rows that no expert computes; then rows @ w_gate and rows @ w_in + b_in, or
        twice None.
    """
    E, D, F = w_in.shape
    hidden = rows.new_empty(rows.shape[0], F)
    gate, linear = (torch.empty_like(hidden) if keeps_input else None for _ in range(2))
    blocks = product_blocks(rows, w_in, tiles.rows_per_tile, num_live=2)
    launch(
        gated_kernel,
        (triton.cdiv(F, blocks.columns), tiles.num_tiles),
        rows,
        w_gate,
        w_in,
        b_in,
        hidden,
        gate,
        linear,
        tiles.tile,
        E,
        D,
        F,
        **blocks.arguments,
    )
    return hidden, gate, linear


@triton.jit  # type: ignore[untyped-decorator]
def gated_kernel(  # noqa: PLR0913
    x_ptr: tl.tensor,
    gate_weight_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    hidden_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    linear_ptr: tl.tensor,
    tile_ptr: tl.tensor,
    E: tl.tensor,
    D: tl.tensor,
    F: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """Program (j, i) computes row tile i times columns block j of both weights."""
    expert, first_row, num_rows = load_tile(tile_ptr, tl.program_id(1))
    if num_rows == 0:
        return
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    x_ptr += first_row * D
    weight_place = expert.to(tl.int64) * D * F
    sizes = (num_rows, column, tl.where(expert < E, D, 0), F, D, F, 1)
    gate = tl.zeros((ROWS, COLUMNS), tl.float32)
    gate = add_product(gate, x_ptr, gate_weight_ptr + weight_place, sizes, ROWS, DEPTH)
    is_bias = column < tl.where(expert < E, F, 0)
    bias = tl.load(bias_ptr + expert * F + column, mask=is_bias, other=0.0).to(tl.float32)
    linear = tl.zeros((ROWS, COLUMNS), tl.float32) + bias[None, :]
    linear = add_product(linear, x_ptr, weight_ptr + weight_place, sizes, ROWS, DEPTH)
    row = tl.arange(0, ROWS)[:, None]
    place = first_row * F + row * F + column[None, :]
    is_place = (row < num_rows) & (column[None, :] < F)
    if gate_ptr is not None:
        tl.store(gate_ptr + place, gate, mask=is_place)
        tl.store(linear_ptr + place, linear, mask=is_place)
    tl.store(hidden_ptr + place, gate * sigmoid(gate) * linear, mask=is_place)
