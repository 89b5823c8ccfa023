"""The feed-forward networks of all experts, over rows that are sorted by expert."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mtmoe.ops.expert_linear import expert_linear

BF16 = torch.bfloat16
Weights = tuple[Tensor, Tensor, Tensor, Tensor]  # w_in (E, D, F), b_in (E, F), w_out, b_out


def expert_ffn(rows: Tensor, counts: list[int], weights: Weights, dropout: float = 0.0) -> Tensor:
    """Linear, ReLU, dropout, linear, with the weights of each row's expert: the definition.

    Args:
        rows: (R, D), the rows of expert 0 first.
        counts: E numbers that sum to R.
        weights: w_in (E, D, F), b_in (E, F), w_out (E, F, D), b_out (E, D).
        dropout: probability of a hidden number to be 0.

    Returns:
        (R, D)
    """
    w_in, b_in, w_out, b_out = weights
    hidden = F.dropout(F.relu(expert_linear(rows, counts, w_in, b_in)), dropout)
    return expert_linear(hidden, counts, w_out, b_out)


def fast_expert_ffn(rows: Tensor, counts: list[int], weights: Weights) -> Tensor:
    """`expert_ffn` without dropout, on a CPU: one autograd step, products go into whole buffers."""
    out: Tensor = _ExpertFFN.apply(rows, *weights, counts)  # type: ignore[no-untyped-call]
    return out


class _ExpertFFN(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=BF16)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any,
        rows: Tensor,
        w_in: Tensor,
        b_in: Tensor,
        w_out: Tensor,
        b_out: Tensor,
        counts: list[int],
    ) -> Tensor:
        hidden = rows.new_empty(rows.shape[0], w_in.shape[2])
        out = rows.new_empty(rows.shape[0], w_out.shape[2])
        blocks = zip(*(torch.split(t, counts) for t in (rows, hidden, out)), strict=True)
        for e, (x, h, y) in enumerate(blocks):
            if x.shape[0]:
                torch.addmm(b_in[e], x, w_in[e], out=h).relu_()
                torch.addmm(b_out[e], h, w_out[e], out=y)
        ctx.save_for_backward(rows, hidden, w_in, w_out)
        ctx.counts = counts
        return out

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, hidden, w_in, w_out = ctx.saved_tensors
        grad = grad.to(rows.dtype).contiguous()
        d_rows, d_w_in, d_w_out = (torch.empty_like(t) for t in (rows, w_in, w_out))
        d_b_in = w_in.new_zeros(w_in.shape[0], w_in.shape[2])
        d_b_out = w_out.new_zeros(w_out.shape[0], w_out.shape[2])
        tensors = (rows, hidden, grad, d_rows)
        blocks = zip(*(torch.split(t, ctx.counts) for t in tensors), strict=True)
        for e, (x, h, g, dx) in enumerate(blocks):
            if x.shape[0] == 0:
                d_w_in[e].zero_()
                d_w_out[e].zero_()
                continue
            torch.mm(h.t(), g, out=d_w_out[e])
            torch.sum(g, 0, out=d_b_out[e])
            dh = torch.ops.aten.threshold_backward(g @ w_out[e].t(), h, 0)
            torch.mm(x.t(), dh, out=d_w_in[e])
            torch.sum(dh, 0, out=d_b_in[e])
            torch.mm(dh, w_in[e].t(), out=dx)
        return d_rows, d_w_in, d_b_in, d_w_out, d_b_out, None
