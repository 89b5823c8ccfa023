"""Linear maps for inference on a CPU: weights that are laid out once, for the fastest product.

The definition is `F.linear`. All kinds take and give float32; they differ in the numbers that are
multiplied. Products are our own (`packed_linear`) where the machine has them, else oneDNN's. A row
of the output depends on its own row of the input only, and not on how many others there are, in all
bits; oneDNN does not promise it, so the tests check it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmoe.config import WeightType
from mtmoe.ops.int8_rows import INT8_MAX, MIDDLE, quantize_rows, round_to_bytes, scale_rows
from mtmoe.ops.packed_linear import PackedLinear, can_pack, multiply_groups

FEWEST_ROWS = 4  # products of a single row sum in another order
STEPS_OF_OCTAVE = 5  # 2^n rows to the next power of 2 in 16 steps


class FixedLinear(nn.Module):
    """x W' + b, and maybe its ReLU.

    Args:
        weight: (N, K) float32.
        bias: (N,) float32, or None.
        kind: of the numbers that are multiplied.
        has_relu: whether negative outputs become 0.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, kind: WeightType, has_relu: bool = False
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.kind = kind
        weight = weight.detach().float()
        bias = None if bias is None else bias.detach().float().clone()
        self.packed: PackedLinear | None = None  # or there is a product of oneDNN
        if can_pack(kind):
            self.packed = PackedLinear(weight, bias, kind, has_relu)
        else:
            self._product = _PRODUCTS[kind](weight.contiguous(), bias, has_relu)

    @property
    def num_bytes(self) -> int:
        """Of the weights."""
        size = {WeightType.float32: 4, WeightType.bfloat16: 2, WeightType.int8: 1}[self.kind]
        return self.out_features * self.in_features * size

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) float32, or what `multiply` gives, to (..., N) float32."""
        return self.multiply(x).float()

    def multiply(self, x: Tensor) -> Tensor:
        """The same in the numbers that the product gives: bfloat16, if oneDNN's gives them."""
        rows = x.reshape(-1, self.in_features)
        M = rows.shape[0]
        if self.packed is not None:
            out = multiply_groups([self.packed], [M], rows)
            return out.view(*x.shape[:-1], self.out_features)
        missing = rounded_up(M) - M
        if missing:
            rows = F.pad(rows, (0, 0, 0, missing))
        return self._product(rows)[:M].view(*x.shape[:-1], self.out_features)


def rounded_up(num_rows: int) -> int:
    """So many rows are multiplied in place of `num_rows`: 4 or more, and at most a 16th in vain.

    oneDNN compiles and keeps a program for each number of rows that it meets, and a long text would
    bring thousands.
    """
    step = max(FEWEST_ROWS, (1 << max(num_rows - 1, 0).bit_length()) >> STEPS_OF_OCTAVE)
    return max(-(-num_rows // step) * step, FEWEST_ROWS)


def _float32_product(
    weight: Tensor, bias: Tensor | None, has_relu: bool
) -> Callable[[Tensor], Tensor]:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    multiply, after = torch.ops.mkldnn._linear_pointwise, "relu" if has_relu else "none"

    def product(x: Tensor) -> Tensor:
        out: Tensor = multiply(x, packed, bias, after, [], "")
        return out

    return product


def _bfloat16_product(
    weight: Tensor, bias: Tensor | None, has_relu: bool
) -> Callable[[Tensor], Tensor]:
    dtype = torch.bfloat16
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype))
    multiply, after = torch.ops.mkldnn._linear_pointwise, "relu" if has_relu else "none"
    rounded = None if bias is None else bias.to(dtype)

    def product(x: Tensor) -> Tensor:
        out: Tensor = multiply(x.to(dtype), packed, rounded, after, [], "")
        return out

    return product


def _int8_product(
    weight: Tensor, bias: Tensor | None, has_relu: bool
) -> Callable[[Tensor], Tensor]:
    """Each output's weights and each input row have a scale of their own; sums are exact.

    CPUs multiply unsigned rows by signed weights. So rows are shifted to 1..255, and what that adds
    to every sum, 128 times the sum of the weights, is taken off with the bias of the product.
    """
    rounded, scale = quantize_rows(weight)
    packed = torch.ops.onednn.qlinear_prepack(rounded, None)
    zero = torch.zeros(weight.shape[0], dtype=torch.int64)
    output_scale = scale.flatten() / INT8_MAX
    shift = -MIDDLE * rounded.sum(1).float() * output_scale
    multiply = torch.ops.onednn.qlinear_pointwise

    def product(x: Tensor) -> Tensor:
        q, largest = round_to_bytes(x)
        sums = multiply(
            q, 1.0, 0, packed, output_scale, zero, shift, 1.0, 0, torch.float32, "none", [], ""
        )
        return scale_rows(sums, largest, bias, has_relu)

    return product


_PRODUCTS = {
    WeightType.float32: _float32_product,
    WeightType.bfloat16: _bfloat16_product,
    WeightType.int8: _int8_product,
}
