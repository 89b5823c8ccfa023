"""Experts on a CPU: permute, both products and combine in one autograd step.

    y[t] = sum over the rows r of t of w[r] * (a[r] @ W_out + b_out),  a = act(x[t] @ W_in + b_in)

The backward pass is written by hand; g is the gradient of a row's token, g_w = w * g:

    dw = g . out;  dW_out = a' @ g_w;  db_out = sum(g_w);  dh = (g_w @ W_out') * act'(h)
    dW_in = x' @ dh;  db_in = sum(dh);  dx = dh @ W_in'
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mtmoe.config import Activation
from mtmoe.ops.buffers import BufferPool
from mtmoe.ops.cpu_blocks import Blocks, ExpertPass
from mtmoe.ops.cpu_matmul import compute_dtype, fastest_float32
from mtmoe.ops.cpu_padded import PaddedPass, is_padding_cheap
from mtmoe.ops.dispatch import Permutation
from mtmoe.ops.expert_ffn import ExpertWeights


def fused_experts(
    x: Tensor,
    weight: Tensor,
    permutation: Permutation,
    weights: ExpertWeights,
    activation: Activation = Activation.relu,
    buffers: BufferPool | None = None,
) -> Tensor:
    """`permute`, `expert_ffn` and `combine` of `mtmoe.ops` in one, with the same gradients.

    Args:
        x: (T, D).
        weight: (T, K) float32 share of each choice.
        buffers: memory of earlier steps to use again.

    Returns:
        (T, D)
    """
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weights = x.to(dtype), weights.map(lambda w: w.to(dtype))
    leaves = (x, weight, *(w for w in weights if w is not None))
    is_trained = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves)
    with torch.autocast("cpu", enabled=False), fastest_float32():
        out: Tensor = _FusedExperts.apply(  # type: ignore[no-untyped-call]
            x, weight, permutation, activation, is_trained, buffers or BufferPool(), *weights
        )
    return out


class _FusedExperts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        permutation: Permutation,
        activation: Activation,
        is_trained: bool,
        buffers: BufferPool,
        *weights: Tensor | None,
    ) -> Tensor:
        """Compute, and keep what the gradients need."""
        experts = ExpertWeights(*weights)  # type: ignore[arg-type]
        blocks = Blocks.of(permutation.counts)
        has_few_rows = is_padding_cheap(blocks)  # an expert: then reading its weights is what costs
        dtype = x.dtype if has_few_rows else compute_dtype(x.dtype)
        rows = x.index_select(0, permutation.token).to(dtype)  # (R, D)
        make = PaddedPass if has_few_rows and is_trained else ExpertPass
        work = make(experts, activation, blocks, buffers)
        out, hidden, gate = work.forward(rows, keep_hidden=is_trained)
        ctx.save_for_backward(rows, out, hidden, gate, weight, *weights)
        ctx.permutation, ctx.activation, ctx.blocks, ctx.buffers = (
            permutation, activation, blocks, buffers,
        )  # fmt: skip
        ctx.dtype = x.dtype
        return _sum_rows(out, permutation, weight.to(dtype)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients, in the order of `forward`'s arguments."""
        rows, out, hidden, gate, weight, *weights = ctx.saved_tensors
        permutation: Permutation = ctx.permutation
        row_weight = weight.flatten().index_select(0, permutation.choice).to(rows.dtype)
        g = grads[0].index_select(0, permutation.token).to(rows.dtype)  # (R, D)
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = weight.new_zeros(weight.numel())
            d_weight[permutation.choice] = (g * out).sum(1).to(weight.dtype)
            d_weight = d_weight.view(weight.shape)
        g.mul_(row_weight.unsqueeze(1))
        with fastest_float32():
            make = PaddedPass if is_padding_cheap(ctx.blocks) else ExpertPass
            work = make(ExpertWeights(*weights), ctx.activation, ctx.blocks, ctx.buffers)
            d_rows, d = work.backward(rows, hidden, gate, g)
        dx = _sum_rows(d_rows, permutation, None).to(ctx.dtype)
        return dx, d_weight, None, None, None, None, *d


def _sum_rows(rows: Tensor, permutation: Permutation, weight: Tensor | None) -> Tensor:
    """(R, D) rows to (T, D): the sum of each token's rows, weighted by `weight`, (T, K)."""
    T, K = permutation.row.shape
    if rows.shape[0] < T * K:  # some choices have no row
        if weight is not None:
            rows = rows * weight.flatten().index_select(0, permutation.choice).unsqueeze(1)
        return rows.new_zeros(T, rows.shape[1]).index_add_(0, permutation.token, rows)
    by_token = rows.index_select(0, permutation.row.flatten())  # (T * K, D)
    if weight is not None:
        by_token.mul_(weight.reshape(-1, 1))
    return by_token if K == 1 else by_token.view(T, K, rows.shape[1]).sum(1)
