"""Linear maps whose matrices the ranks of a tensor group share out (Shoeybi et al. 2019).

Megatron-LM, arXiv:1909.08053: a column map gives each rank a part of the outputs, a row map takes
parts of the inputs; a pair of them needs one sum over the ranks forward, and one backward.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from mtmoe.parallel.collectives import sum_over
from mtmoe.parallel.mesh import ONE_RANK, Axis
from mtmoe.parallel.slices import local_part


class ColumnLinear(nn.Linear):
    """Each of T ranks computes 1/T of the outputs.

    Its input must have passed `sum_gradient`, once for all maps that read it.

    Args:
        learns_bias: whether the bias has a gradient.
    """

    tensor_dims: ClassVar[dict[str, int]] = {"weight": 0, "bias": 0}

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, learns_bias: bool = True
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.learns_bias = learns_bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., out_features / T)."""
        bias = None if self.bias is None else local_part(self.bias)
        if bias is not None and not self.learns_bias:
            bias = bias.detach()
        return F.linear(x, local_part(self.weight), bias)


class RowLinear(nn.Linear):
    """Each of T ranks holds 1/T of the inputs; all get the whole output."""

    tensor_dims: ClassVar[dict[str, int]] = {"weight": 1}

    def __init__(self, in_features: int, out_features: int, tensor_axis: Axis = ONE_RANK) -> None:
        super().__init__(in_features, out_features)
        self.axis = tensor_axis

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features / T) to (..., out_features)."""
        if self.axis.size == 1:
            return F.linear(x, local_part(self.weight), self.bias)
        return sum_over(F.linear(x, local_part(self.weight)), self.axis) + self.bias
