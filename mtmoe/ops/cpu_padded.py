"""The products of many experts with few rows each, on a CPU: one batched product for all.

A product of a few rows is bound by reading the expert's weights, and the gradient of the weights by
writing it; made expert by expert, each waits for the threads to meet. Padding the rows of all
experts to one number costs little beside that. Without a backward pass it gains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mtmoe.config import Activation
from mtmoe.ops.buffers import BufferPool
from mtmoe.ops.cpu_blocks import Blocks, activation_gradient
from mtmoe.ops.expert_ffn import ExpertWeights, activate

MAX_MEAN_ROWS = 32  # of an expert: above, products are bound by arithmetic
MAX_PADDING = 4  # padded rows per row


def is_padding_cheap(blocks: Blocks) -> bool:
    """Whether experts are many, and have few rows that are spread evenly enough."""
    num_rows, E = sum(blocks.sizes), len(blocks.sizes)
    padded = E * max(blocks.sizes, default=0)
    return E > 1 and num_rows <= MAX_MEAN_ROWS * E and 0 < padded <= MAX_PADDING * num_rows


@dataclass(frozen=True)
class PaddedPass:
    """`mtmoe.ops.cpu_blocks.ExpertPass` with (E, C, ...) tensors, C the most rows of an expert."""

    weights: ExpertWeights
    activation: Activation
    blocks: Blocks
    buffers: BufferPool

    @cached_property
    def place(self) -> Tensor:
        """(R,) int64: where each row is among the E * C padded ones."""
        sizes = torch.tensor(self.blocks.sizes)
        first = sizes.cumsum(0) - sizes  # (E,) first row of each expert
        shift = torch.arange(len(sizes)) * int(sizes.max()) - first
        return torch.arange(int(sizes.sum())) + shift.repeat_interleave(sizes)

    def forward(
        self, rows: Tensor, keep_hidden: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """See `ExpertPass.forward`; hidden numbers are (E, C, F)."""
        w, x = self.weights, self._pad(rows)
        shape = (*x.shape[:2], w.w_in.shape[2])
        hidden = self.buffers.empty("hidden", x, *shape)
        torch.baddbmm(w.b_in.unsqueeze(1), x, w.w_in, out=hidden)
        gate = None
        if w.w_gate is not None:
            gate = torch.bmm(x, w.w_gate, out=self.buffers.empty("gate", x, *shape))
        is_relu = self.activation is Activation.relu
        a = hidden.relu_() if is_relu else activate(hidden, gate, self.activation)
        out = torch.baddbmm(w.b_out.unsqueeze(1), a, w.w_out)
        kept = (hidden, gate) if keep_hidden else (None, None)
        return out.flatten(0, 1).index_select(0, self.place).to(rows.dtype), *kept

    def backward(
        self, rows: Tensor, hidden: Tensor, gate: Tensor | None, g: Tensor
    ) -> tuple[Tensor, ExpertWeights]:
        """See `ExpertPass.backward`; padding has a gradient of 0 and adds nothing."""
        w, x, dy = self.weights, self._pad(rows), self._pad(g)
        a = hidden
        if self.activation is not Activation.relu:
            a = activate(hidden, gate, self.activation)
        da = torch.bmm(dy, w.w_out.transpose(1, 2))
        d_w_out = torch.bmm(a.transpose(1, 2), dy, out=self._gradient("w_out", w.w_out))
        dh, d_gate = activation_gradient(da, hidden, gate, self.activation)
        d_w_in = torch.bmm(x.transpose(1, 2), dh, out=self._gradient("w_in", w.w_in))
        dx = torch.bmm(dh, w.w_in.transpose(1, 2))
        d_w_gate = None
        if w.w_gate is not None and d_gate is not None:
            into = self._gradient("w_gate", w.w_gate)
            d_w_gate = torch.bmm(x.transpose(1, 2), d_gate, out=into)
            dx.baddbmm_(d_gate, w.w_gate.transpose(1, 2))
        d_rows = dx.flatten(0, 1).index_select(0, self.place).to(rows.dtype)
        return d_rows, ExpertWeights(d_w_in, dh.sum(1), d_w_out, dy.sum(1), d_w_gate)

    def _pad(self, rows: Tensor) -> Tensor:
        """(R, D) to (E, C, D) in the dtype of the weights, 0 where no row is."""
        E, C, D = len(self.blocks.sizes), max(self.blocks.sizes), rows.shape[1]
        padded = self.weights.w_in.new_zeros(E * C, D)
        return padded.index_copy_(0, self.place, rows.to(padded.dtype)).view(E, C, D)

    def _gradient(self, name: str, weight: Tensor) -> Tensor:
        return self.buffers.empty(name, weight, *weight.shape)
