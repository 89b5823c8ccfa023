"""One linear map per expert, over rows that are sorted by expert."""

from __future__ import annotations

import torch
from torch import Tensor


def expert_linear(rows: Tensor, counts: list[int], weight: Tensor, bias: Tensor) -> Tensor:
    """Apply weight[e] and bias[e] to the rows of expert e.

    `unbind` gives one gradient of the stacked weight by one stack; indexing it per expert would
    write a gradient of all experts for each of them.

    Args:
        rows: (R, D_in), the rows of expert 0 first.
        counts: E numbers that sum to R.
        weight: (E, D_in, D_out).
        bias: (E, D_out).

    Returns:
        (R, D_out)
    """
    parts = zip(torch.split(rows, counts), weight.unbind(0), bias.unbind(0), strict=True)
    return torch.cat([torch.addmm(b, block, w) for block, w, b in parts])
