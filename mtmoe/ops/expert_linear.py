"""One linear map per expert, over rows that are sorted by expert."""

from __future__ import annotations

import torch
from torch import Tensor


def expert_linear(
    rows: Tensor, counts: list[int], weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Apply weight[e] and bias[e] to the rows of expert e.

    `unbind` gives one gradient of the stacked weight by one stack; indexing it per expert would
    write a gradient of all experts for each of them.

    Args:
        rows: (R, D_in), the rows of expert 0 first.
        counts: E numbers that sum to R.
        weight: (E, D_in, D_out).
        bias: (E, D_out), or none.

    Returns:
        (R, D_out)
    """
    blocks = zip(torch.split(rows, counts), weight.unbind(0), strict=True)
    if bias is None:
        return torch.cat([block @ w for block, w in blocks])
    biases = bias.unbind(0)
    return torch.cat(
        [torch.addmm(b, block, w) for (block, w), b in zip(blocks, biases, strict=True)]
    )
