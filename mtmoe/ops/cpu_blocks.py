"""The products of all experts on a CPU, expert by expert."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mtmoe.config import Activation
from mtmoe.ops.buffers import BufferPool
from mtmoe.ops.expert_ffn import ExpertWeights, activate

aten = torch.ops.aten


@dataclass(frozen=True)
class Blocks:
    """Where the rows of each expert are."""

    sizes: list[int]  # E numbers that sum to R

    @staticmethod
    def of(counts: Tensor) -> Blocks:
        """The blocks of `counts`, (E,) int64."""
        return Blocks(counts.tolist())

    def __iter__(self) -> Iterator[tuple[int, slice]]:
        """(number, rows) of each expert that has any."""
        start = 0
        for expert, size in enumerate(self.sizes):
            if size:
                yield expert, slice(start, start + size)
            start += size

    @property
    def unused(self) -> list[int]:
        """Experts without rows."""
        return [expert for expert, size in enumerate(self.sizes) if size == 0]


@dataclass(frozen=True)
class ExpertPass:
    """Forward and backward of the experts over rows in their order.

    Rows may have a higher precision than the weights: then products are made in theirs.
    """

    weights: ExpertWeights
    activation: Activation
    blocks: Blocks
    buffers: BufferPool

    def forward(
        self, rows: Tensor, keep_hidden: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The experts' outputs, and what `backward` needs.

        Args:
            rows: (R, D).
            keep_hidden: whether there will be a backward pass.

        Returns:
            (R, D); (R, F) the hidden numbers after a ReLU, before other activations; and (R, F) the
            gate of SwiGLU.
        """
        w, dtype = self.weights, rows.dtype
        R, F = rows.shape[0], w.w_in.shape[2]
        kept = R if keep_hidden else max(self.blocks.sizes, default=0)
        hidden = self.buffers.empty("hidden", rows, kept, F)
        gate = None if w.w_gate is None else self.buffers.empty("gate", rows, kept, F)
        out = torch.empty_like(rows)
        for e, block in self.blocks:
            part = block if keep_hidden else slice(0, block.stop - block.start)
            h = torch.addmm(w.b_in[e].to(dtype), rows[block], w.w_in[e].to(dtype), out=hidden[part])
            a = self._activate(h, rows[block], e, None if gate is None else gate[part])
            torch.addmm(w.b_out[e].to(dtype), a, w.w_out[e].to(dtype), out=out[block])
        return (out, hidden, gate) if keep_hidden else (out, None, None)

    def _activate(self, hidden: Tensor, rows: Tensor, e: int, gate: Tensor | None) -> Tensor:
        if self.activation is Activation.relu:
            return hidden.relu_()
        if gate is not None:
            assert self.weights.w_gate is not None
            torch.mm(rows, self.weights.w_gate[e].to(rows.dtype), out=gate)
        return activate(hidden, gate, self.activation)

    def backward(
        self, rows: Tensor, hidden: Tensor, gate: Tensor | None, g: Tensor
    ) -> tuple[Tensor, ExpertWeights]:
        """The gradients of the rows and of the weights.

        Args:
            rows: (R, D), as `forward` took them.
            hidden: (R, F), as `forward` gave it; likewise `gate`.
            g: (R, D) gradient of the experts' outputs.

        Returns:
            (R, D), and the gradients of all weights in their dtype.
        """
        w, dtype = self.weights, rows.dtype
        memory = (
            None if t is None else gradient_memory(name, t, self.blocks, self.buffers)
            for name, t in w._asdict().items()
        )
        d = ExpertWeights._make(memory)
        d_rows = torch.empty_like(rows)
        for e, block in self.blocks:
            x, h, g_e = rows[block], hidden[block], g[block]
            gate_e = None if gate is None else gate[block]
            a = h if self.activation is Activation.relu else activate(h, gate_e, self.activation)
            product_into(d.w_out[e], a.t(), g_e)
            d.b_out[e] = g_e.sum(0)
            da = g_e @ w.w_out[e].to(dtype).t()
            dh, d_gate = activation_gradient(da, h, gate_e, self.activation)
            product_into(d.w_in[e], x.t(), dh)
            d.b_in[e] = dh.sum(0)
            torch.mm(dh, w.w_in[e].to(dtype).t(), out=d_rows[block])
            if d_gate is not None:
                assert w.w_gate is not None
                assert d.w_gate is not None
                product_into(d.w_gate[e], x.t(), d_gate)
                d_rows[block].addmm_(d_gate, w.w_gate[e].to(dtype).t())
        return d_rows, d


def gradient_memory(name: str, weight: Tensor, blocks: Blocks, buffers: BufferPool) -> Tensor:
    """Memory for the gradient of stacked weights, 0 for experts without rows."""
    gradient = buffers.empty(name, weight, *weight.shape)
    for e in blocks.unused:
        gradient[e].zero_()
    return gradient


def product_into(out: Tensor, a: Tensor, b: Tensor) -> None:
    """out = a @ b, rounded to the dtype of `out` at the end."""
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)


def activation_gradient(
    da: Tensor, hidden: Tensor, gate: Tensor | None, activation: Activation
) -> tuple[Tensor, Tensor | None]:
    """The gradients of `hidden` and `gate`, (n, F) each; the first may be `da` itself."""
    if activation is Activation.relu:
        return aten.threshold_backward.grad_input(da, hidden, 0, grad_input=da), None
    if gate is None:
        return aten.gelu_backward(da, hidden), None
    d_gate = aten.silu_backward(da * hidden, gate)
    return da * torch.nn.functional.silu(gate), d_gate
