"""Backward through the second linear map of the experts and the activation before it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mtmoe.config import Activation
from mtmoe.ops.triton.activation import activation_gradient, normal_cdf, sigmoid
from mtmoe.ops.triton.blocks import product_blocks, readable
from mtmoe.ops.triton.launch import launch
from mtmoe.ops.triton.product import add_product
from mtmoe.ops.triton.tiles import TileMap, load_tile


class HiddenGradient(NamedTuple):
    """What one pass over the hidden numbers gives; (R, F) each, 0 in rows without an expert."""

    linear: Tensor  # the gradient of x @ w_in + b_in
    gate: Tensor | None  # the gradient of x @ w_gate, of SwiGLU only
    hidden: Tensor  # the hidden numbers themselves, for the gradient of w_out


def hidden_gradient(
    grad: Tensor,
    w_out: Tensor,
    kept: Tensor,
    gate: Tensor | None,
    tiles: TileMap,
    activation: Activation,
) -> HiddenGradient:
    """(grad @ w_out[e]^T) times the derivative of the activation, e being each row's expert.

    The forward pass keeps what is needed to make the hidden numbers again, not these: of ReLU they
    are kept themselves, of the others they are written here, where their parts are at hand.

    Args:
        grad: (R, D) contiguous gradient of the experts' output.
        w_out: (E, F, D) contiguous.
        kept: (R, F) hidden numbers for ReLU, else x @ w_in + b_in.
        gate: (R, F) x @ w_gate for SwiGLU, else None.
    """
    E, F, D = w_out.shape
    d_linear = torch.empty_like(kept)
    d_gate = None if gate is None else torch.empty_like(kept)
    hidden = kept if activation is Activation.relu else torch.empty_like(kept)
    num_live = 1 if activation is Activation.relu else 2
    weight = readable(w_out.transpose(1, 2))
    blocks = product_blocks(grad, weight, tiles.rows_per_tile, num_live)
    launch(
        hidden_gradient_kernel,
        (triton.cdiv(F, blocks.columns), tiles.num_tiles),
        grad,
        weight,
        kept,
        gate,
        d_linear,
        d_gate,
        hidden,
        tiles.tile,
        E,
        D,
        F,
        *weight.stride()[1:],
        ACTIVATION=activation.value,
        **blocks.arguments,
    )
    return HiddenGradient(d_linear, d_gate, hidden)


@triton.jit  # type: ignore[untyped-decorator]
def hidden_gradient_kernel(  # noqa: PLR0913
    grad_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    kept_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    d_linear_ptr: tl.tensor,
    d_gate_ptr: tl.tensor,
    hidden_ptr: tl.tensor,
    tile_ptr: tl.tensor,
    E: tl.tensor,
    D: tl.tensor,
    F: tl.tensor,
    depth_stride: tl.tensor,
    column_stride: tl.tensor,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """Program (j, i) computes row tile i times columns block j of w_out^T."""
    expert, first_row, num_rows = load_tile(tile_ptr, tl.program_id(1))
    if num_rows == 0:
        return
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    sizes = (num_rows, column, tl.where(expert < E, D, 0), F, D, depth_stride, column_stride)
    grad = tl.zeros((ROWS, COLUMNS), tl.float32)
    weight_ptr += expert.to(tl.int64) * F * D
    grad = add_product(grad, grad_ptr + first_row * D, weight_ptr, sizes, ROWS, DEPTH)
    row = tl.arange(0, ROWS)[:, None]
    place = first_row * F + row * F + column[None, :]
    is_place = (row < num_rows) & (column[None, :] < F)
    kept = tl.load(kept_ptr + place, mask=is_place, other=0.0).to(tl.float32)
    if ACTIVATION == "swiglu":
        gate = tl.load(gate_ptr + place, mask=is_place, other=0.0).to(tl.float32)
        share = sigmoid(gate)
        silu = gate * share
        tl.store(d_linear_ptr + place, grad * silu, mask=is_place)
        d_gate = grad * kept * (share + silu * (1.0 - share))
        tl.store(d_gate_ptr + place, d_gate, mask=is_place)
        tl.store(hidden_ptr + place, silu * kept, mask=is_place)
    else:
        d_linear = activation_gradient(grad, kept, ACTIVATION)
        tl.store(d_linear_ptr + place, d_linear, mask=is_place)
        if ACTIVATION == "gelu":
            tl.store(hidden_ptr + place, kept * normal_cdf(kept), mask=is_place)
