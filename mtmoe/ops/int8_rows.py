"""Rows of numbers as int8 with a scale each: the weights of outputs, and what these multiply."""

from __future__ import annotations

import torch
from torch import Tensor

from mtmoe.ops import native

INT8_MAX = 127
MIDDLE = 128  # of the unsigned numbers that stand for signed ones
TINY = 1e-30


def round_to_bytes(x: Tensor) -> tuple[Tensor, Tensor]:
    """(M, K) float32 to (M, K) uint8, 1..255, and (M, 1) float32, each row's largest size.

    A byte less 128, divided by 127, times the largest is about the number.
    """
    library = native.library()
    if library is None:
        largest = _largest(x)
        half_up = x.new_tensor(MIDDLE + 0.5)
        return torch.addcmul(half_up, x, INT8_MAX / largest).to(torch.uint8), largest
    x = x.contiguous()
    q, largest = torch.empty_like(x, dtype=torch.uint8), x.new_empty(x.shape[0], 1)
    library.round_rows(x.data_ptr(), *x.shape, q.data_ptr(), largest.data_ptr())
    return q, largest


def scale_rows(sums: Tensor, factor: Tensor, bias: Tensor | None, has_relu: bool) -> Tensor:
    """(M, N) times (M, 1) plus (N,), and maybe its ReLU; may be made in place."""
    library = native.library()
    if library is None:
        out = sums.mul_(factor) if bias is None else torch.addcmul(bias, sums, factor)
        return out.relu_() if has_relu else out
    added = None if bias is None else bias.data_ptr()
    library.scale_rows(sums.data_ptr(), *sums.shape, factor.data_ptr(), added, has_relu)
    return sums


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """(M, K) float32 to (M, K) int8 and (M, 1) float32 scales, whose product is about `x`."""
    scale = _largest(x) / INT8_MAX
    return (x / scale).round_().to(torch.int8), scale


def _largest(x: Tensor) -> Tensor:
    """(M, 1): the largest size of a number of each row; above 0, so that one can divide by it."""
    return x.abs().amax(1, keepdim=True).clamp_(min=TINY)
