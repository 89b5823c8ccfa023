"""Linear maps for inference on a CPU whose weights are stored in 4 bits, for experts.

The definition is `F.linear` with `quantize_groups(weight).weight()`: each weight is rounded to the
nearest of 16 evenly spaced numbers of its group, 32 weights in a row of one output, that reach from
the group's least to its greatest weight, 0 among them. With step and offset a weight takes 5 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP = 32  # weights that share a step
LAST, MIDDLE = 15, 8  # of the 16 numbers; the middle one stands for the offset
OUTPUT_MULTIPLE = 16  # that PyTorch's kernel takes
TINY = 1e-30


@dataclass(frozen=True)
class Groups:
    """A (N, G * 32) matrix in 4 bits, G groups a row."""

    number: Tensor  # (N, G, 32) int32, 0..15
    step: Tensor  # (N, G) bfloat16, above 0
    offset: Tensor  # (N, G) bfloat16: what number 8 stands for

    def weight(self) -> Tensor:
        """(N, G * 32) float32."""
        step, offset = self.step.float()[..., None], self.offset.float()[..., None]
        return ((self.number - MIDDLE) * step + offset).flatten(1)


class Int4Linear(nn.Module):
    """x W' + b, and maybe its ReLU, with W in 4 bits.

    Rows and their sums are rounded to bfloat16, the only dtype whose kernel in PyTorch is fast; the
    kernel makes weights of the 4 bits as it goes, and sums in float32. As in `FixedLinear`, a row
    of the output depends on its own row of the input only, in all bits; tests check it.

    Args:
        weight: (N, K) float32.
        bias: (N,) float32, or None.
        has_relu: whether negative outputs become 0.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, has_relu: bool = False) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.has_relu = has_relu
        missing = -self.in_features % GROUP, -self.out_features % OUTPUT_MULTIPLE
        groups = quantize_groups(F.pad(weight.detach().float(), (0, missing[0], 0, missing[1])))
        self._packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(
            groups.number.flatten(1), 1
        )
        self._scales = torch.stack([groups.step.t(), groups.offset.t()], 2)  # (G, N, 2)
        self._bias = None if bias is None else bias.detach().float().clone()

    @property
    def num_bytes(self) -> int:
        """Of the weights, steps and offsets included."""
        return sum(
            tensor.numel() * tensor.element_size() for tensor in (self._packed, self._scales)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) float32 to (..., N) float32."""
        return self.multiply(x)

    def multiply(self, x: Tensor) -> Tensor:
        """The same; see `FixedLinear.multiply`."""
        rows = x.reshape(-1, self.in_features).to(torch.bfloat16)
        rows = F.pad(rows, (0, -self.in_features % GROUP)).contiguous()
        multiply = torch.ops.aten._weight_int4pack_mm_for_cpu
        out: Tensor = multiply(rows, self._packed, GROUP, self._scales)
        out = out[:, : self.out_features].float()
        if self._bias is not None:
            out += self._bias
        if self.has_relu:
            out.relu_()
        return out.view(*x.shape[:-1], self.out_features)


def quantize_groups(weight: Tensor) -> Groups:
    """(N, G * 32) float32 to 4 bits; each weight is at most half a step of its group away.

    Steps and offsets are rounded to bfloat16 first, the weights to what these then give. A group
    that is all above or below 0 reaches to 0 nevertheless: so its offset is at most 8 steps, which
    bfloat16 knows to a small part of a step.
    """
    groups = weight.view(weight.shape[0], -1, GROUP)  # (N, G, 32)
    low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    step = ((high - low) / LAST).clamp(min=TINY).to(torch.bfloat16)
    offset = (low + MIDDLE * step.float()).to(torch.bfloat16)
    number = (groups - offset.float()[..., None]) / step.float()[..., None]
    return Groups(number.round().add(MIDDLE).clamp(0, LAST).to(torch.int32), step, offset)
