"""How every kernel is started."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor


def launch(
    kernel: Any, grid: tuple[int, ...], first: Tensor, *others: Any, **constants: Any
) -> None:
    """Run `kernel` on the device of its first argument, which need not be the current device.

    Multiply and add may fuse, as in torch's own kernels; Triton wants that said (its default is
    about to change). An empty grid starts nothing.
    """
    if 0 in grid:
        return
    is_elsewhere = first.is_cuda and first.device.index != torch.cuda.current_device()
    with torch.cuda.device(first.device) if is_elsewhere else contextlib.nullcontext():
        kernel[grid](first, *others, enable_fp_fusion=True, **constants)
