"""Experts and the dense network beside them on a CPU, in one autograd step.

    y[t] = S(x[t]) + p[t] * N_e(x[t]),  e the expert of t; S and N_e are relu(x W + b) W' + b'

Tokens are sorted by expert once, for both networks; both write into the same output, and backward
into the same gradient of the tokens. Padding is left out by the same copies that sort. The backward
pass is written by hand; g is the gradient of a row of y, a are the hidden numbers of N_e:

    dp = g . N_e(x);  dW' = a' @ (p g);  db' = sum(p g);  da = (p g @ W') * relu'(a)
    dW = x' @ da;  db = sum(da);  dx = da @ W' + the same of S, with p = 1
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtmoe.config import Activation
from mtmoe.ops.buffers import BufferPool
from mtmoe.ops.cpu_blocks import Blocks, activation_gradient, gradient_memory, product_into
from mtmoe.ops.cpu_matmul import compute_dtype, fastest_float32
from mtmoe.ops.cpu_order import TokenOrder
from mtmoe.ops.dispatch import Permutation
from mtmoe.ops.expert_ffn import ExpertWeights

_scratch = BufferPool()  # what no layer needs longer than its own pass


class SharedWeights(NamedTuple):
    """The weights of the dense network, as `torch.nn.Linear` has them."""

    w_in: Tensor  # (Fs, D)
    b_in: Tensor  # (Fs,)
    w_out: Tensor  # (D, Fs)
    b_out: Tensor  # (D,)


def fused_shared(
    x: Tensor,
    weight: Tensor,
    permutation: Permutation,
    weights: ExpertWeights,
    shared: SharedWeights,
    buffers: BufferPool | None = None,
    real: Tensor | None = None,
) -> Tensor:
    """`fused_experts` of one choice a token, plus the dense network; ReLU in both.

    Args:
        x: (N, D): the T tokens, or with `real` all positions of a batch.
        weight: (T, 1) float32 share of the expert.
        permutation: of the T tokens; those without a row get the dense network alone.
        buffers: memory of earlier steps to use again.
        real: (T,) int64, which of the N positions are tokens; None: all.

    Returns:
        (N, D), 0 where no token is.
    """
    leaves = [*weights[:4], *shared]
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, leaves = x.to(dtype), [w.to(dtype) for w in leaves]
    is_trained = torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, *leaves))
    pool = (buffers or BufferPool()) if is_trained else _scratch
    order = TokenOrder.of(permutation, real, x.shape[0])
    with torch.autocast("cpu", enabled=False), fastest_float32():
        out: Tensor = _FusedShared.apply(  # type: ignore[no-untyped-call]
            x, weight, order, pool, *leaves
        )
    return out


class _FusedShared(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, order: TokenOrder, buffers: BufferPool, *leaves: Tensor
    ) -> Tensor:
        """Compute, and keep what the gradients need."""
        dtype = compute_dtype(x.dtype)
        experts, shared = _in_dtype(leaves, dtype)
        rows = order.sort(x, buffers.empty("rows", x, order.num_tokens, x.shape[1])).to(dtype)
        p = weight.index_select(0, order.token).to(dtype)  # (T, 1)
        out = order.new_rows(rows, _scratch if buffers.keeps else buffers)
        dense = _shared_forward(rows, shared, buffers, out[: order.num_tokens])
        hidden = buffers.empty("hidden", rows, order.num_rows, experts.w_in.shape[2])
        expert_out = buffers.empty("expert_out", rows, order.num_rows, x.shape[1])
        blocks = order.blocks((rows, p, hidden, expert_out, out), experts[:4])
        for x_e, p_e, a, y, total, w_in, b_in, w_out, b_out in blocks:
            torch.addmm(b_in, x_e, w_in, out=a).relu_()
            torch.addmm(b_out, a, w_out, out=y)
            total.addcmul_(y, p_e)
        ctx.save_for_backward(rows, p, dense, hidden, expert_out, *leaves)
        ctx.order, ctx.buffers, ctx.dtypes = order, buffers, (x.dtype, weight.dtype)
        return order.restore(out).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients, in the order of `forward`'s arguments."""
        rows, p, dense, hidden, expert_out, *leaves = ctx.saved_tensors
        order: TokenOrder = ctx.order
        R = order.num_rows
        experts, shared = _in_dtype(leaves, rows.dtype)
        memory = _scratch.empty("g", grads[0], order.num_tokens, rows.shape[1])
        g = order.sort(grads[0], memory).to(rows.dtype)
        d_rows = order.new_rows(rows, _scratch)
        scaled = _scratch.empty("scaled", g, R, g.shape[1])
        dp = torch.zeros_like(p)
        torch.sum(torch.mul(g[:R], expert_out, out=scaled), 1, keepdim=True, out=dp[:R])
        torch.mul(g[:R], p[:R], out=scaled)
        with fastest_float32():
            d_shared = _shared_backward(rows, dense, g, shared, d_rows[: order.num_tokens])
            like = ExpertWeights(*leaves[:4])
            tensors = (rows, hidden, scaled, d_rows)
            d_experts = _experts_backward(tensors, order, experts, like, ctx.buffers)
        dx = order.restore(d_rows).to(ctx.dtypes[0])
        d_weight = dp.index_select(0, order.row).to(ctx.dtypes[1])
        d_dense = (d.to(w.dtype) for d, w in zip(d_shared, leaves[4:], strict=True))
        return dx, d_weight, None, None, *d_experts[:4], *d_dense


def _in_dtype(
    leaves: tuple[Tensor, ...] | list[Tensor], dtype: torch.dtype
) -> tuple[ExpertWeights, SharedWeights]:
    cast = [leaf.to(dtype) for leaf in leaves]
    return ExpertWeights(*cast[:4]), SharedWeights(*cast[4:])


def _shared_forward(rows: Tensor, w: SharedWeights, buffers: BufferPool, out: Tensor) -> Tensor:
    """The (T, Fs) hidden numbers of the dense network; its output goes to `out`."""
    dense = buffers.empty("dense", rows, rows.shape[0], w.w_in.shape[0])
    torch.addmm(w.b_in, rows, w.w_in.t(), out=dense).relu_()
    torch.addmm(w.b_out, dense, w.w_out.t(), out=out)
    return dense


def _shared_backward(
    rows: Tensor, dense: Tensor, g: Tensor, w: SharedWeights, d_rows: Tensor
) -> SharedWeights:
    """The gradients of the dense network's weights; that of its input goes to `d_rows`."""
    da = torch.mm(g, w.w_out, out=_scratch.empty("d_dense", dense, *dense.shape))
    da, _ = activation_gradient(da, dense, None, Activation.relu)
    torch.mm(da, w.w_in, out=d_rows)
    return SharedWeights(da.t() @ rows, da.sum(0), g.t() @ dense, g.sum(0))


def _experts_backward(
    tensors: tuple[Tensor, ...],
    order: TokenOrder,
    w: ExpertWeights,
    like: ExpertWeights,
    buffers: BufferPool,
) -> ExpertWeights:
    """The gradients of the experts' weights; that of their input is added to the last tensor.

    Args:
        tensors: rows; hidden numbers; gradient of the experts' outputs; gradient of the rows.
    """
    blocks = Blocks(order.sizes)
    d = ExpertWeights._make(
        None if t is None else gradient_memory(name, t, blocks, buffers)
        for name, t in like._asdict().items()
    )
    stacks = (w.w_in.mT, w.w_out.mT, *d[:4])
    for x, a, g, d_rows, w_in_t, w_out_t, d_w_in, d_b_in, d_w_out, d_b_out in order.blocks(
        tensors, stacks
    ):
        product_into(d_w_out, a.t(), g)
        d_b_out.copy_(g.sum(0))
        da, _ = activation_gradient(g @ w_out_t, a, None, Activation.relu)
        product_into(d_w_in, x.t(), da)
        d_b_in.copy_(da.sum(0))
        d_rows.addmm_(da, w_in_t)
    return d
