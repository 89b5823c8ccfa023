"""Mixed precision where the machine gains from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from mtmoe.config import Autocast

PROBE_SIZE = 512  # rows and columns of the matrices that are timed
MIN_GAIN = 1.2  # bfloat16 must be this much faster than float32, to outweigh its conversions


@cache
def is_bfloat16_fast(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices clearly faster than float32 ones.

    A GPU tells; a CPU is timed once, a few milliseconds: some emulate bfloat16, and some that have
    the instructions (AVX512-BF16 without AMX on Intel) are slower with them than MKL in float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return False
    full = torch.ones(PROBE_SIZE, PROBE_SIZE)
    half = full.bfloat16()
    return fastest_seconds(lambda: half @ half) * MIN_GAIN < fastest_seconds(lambda: full @ full)


def fastest_seconds(function: Callable[[], object], repeats: int = 7) -> float:
    """The shortest of a few runs, after one that is not counted."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def autocast(device: torch.device, choice: Autocast) -> torch.autocast:
    """The autocast context that `choice` means on `device`."""
    use = choice is Autocast.bfloat16 or (choice is Autocast.auto and is_bfloat16_fast(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=use)


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or as it is where it is more precise."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
