"""The feed-forward networks of all experts, by grouped kernels, with all gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mtmoe.config import Activation
from mtmoe.ops.expert_ffn import ExpertWeights
from mtmoe.ops.triton.blocks import check_dtype, rows_per_tile
from mtmoe.ops.triton.gated import grouped_gate
from mtmoe.ops.triton.hidden_gradient import hidden_gradient
from mtmoe.ops.triton.linear import grouped_linear
from mtmoe.ops.triton.tiles import TileMap, map_tiles
from mtmoe.ops.triton.weight_gradient import bias_gradient, weight_gradient


def expert_ffn(
    rows: Tensor,
    counts: Tensor,
    weights: ExpertWeights,
    activation: Activation = Activation.relu,
) -> Tensor:
    """Linear, activation, linear, with the weights of each row's expert.

    Equals `mtmoe.ops.expert_ffn.expert_ffn` without dropout, but does not wait for the device:
    `counts` stays there. Sums are float32 (TF32 is off). Computes in the dtype of autocast if that
    is on, else in that of `rows`; the gradient of a weight has the weight's dtype and is rounded
    once.

    Args:
        rows: (R, D) float32, bfloat16 or float16, the rows of expert 0 first.
        counts: (E,) int64 that sum to R or less; rows behind them are not read.

    Returns:
        (R, D), 0 in the rows behind.

    Raises:
        ConfigError: another dtype.
    """
    dtype = product_dtype(rows)
    check_dtype(dtype)
    is_trained = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (rows, *weights)
    )
    out: Tensor = _ExpertFFN.apply(  # type: ignore[no-untyped-call]
        rows.to(dtype), *weights, counts, activation, is_trained
    )
    return out


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of autocast where that is on for the device of `x`, else that of `x`."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


class _ExpertFFN(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any,
        rows: Tensor,
        w_in: Tensor,
        b_in: Tensor,
        w_out: Tensor,
        b_out: Tensor,
        w_gate: Tensor | None,
        counts: Tensor,
        activation: Activation,
        is_trained: bool,
    ) -> Tensor:
        """Compute, and keep what the gradients need."""
        ctx.dtype, ctx.activation = w_in.dtype, activation
        rows, w_in, b_in, w_out, b_out = (
            t.to(rows.dtype).contiguous() for t in (rows, w_in, b_in, w_out, b_out)
        )
        w_gate = None if w_gate is None else w_gate.to(rows.dtype).contiguous()
        R, E = rows.shape[0], w_in.shape[0]
        tiles = map_tiles(counts, R, rows_per_tile(rows.dtype, R, E))
        if w_gate is None:
            keeps_input = is_trained and activation is not Activation.relu
            hidden, kept = grouped_linear(rows, w_in, b_in, tiles, activation.value, keeps_input)
            gate = None
            kept = hidden if kept is None else kept
        else:
            hidden, gate, kept = grouped_gate(rows, w_gate, w_in, b_in, tiles, is_trained)
        out, _ = grouped_linear(hidden, w_out, b_out, tiles)
        if is_trained:
            ctx.save_for_backward(rows, w_in, w_out, w_gate, kept, gate, tiles.tile, tiles.start)
            ctx.rows_per_tile = tiles.rows_per_tile
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients, in the order of `forward`'s arguments."""
        rows, w_in, w_out, w_gate, kept, gate, tile, start = ctx.saved_tensors
        tiles = TileMap(tile, start, ctx.rows_per_tile)
        grad = grad.to(rows.dtype).contiguous()
        d = hidden_gradient(grad, w_out, kept, gate, tiles, ctx.activation)
        second = None if d.gate is None else (d.gate, w_gate.transpose(1, 2))
        d_rows, _ = grouped_linear(d.linear, w_in.transpose(1, 2), None, tiles, second=second)
        if not any(ctx.needs_input_grad[1:6]):  # frozen experts
            return d_rows, *[None] * 8
        return (
            d_rows,
            weight_gradient(rows, d.linear, tiles, ctx.dtype),
            bias_gradient(d.linear, tiles, ctx.dtype),
            weight_gradient(d.hidden, grad, tiles, ctx.dtype),
            bias_gradient(grad, tiles, ctx.dtype),
            None if d.gate is None else weight_gradient(rows, d.gate, tiles, ctx.dtype),
            *[None] * 3,
        )
