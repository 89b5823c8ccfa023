"""Mixed precision where the machine gains from it."""

from __future__ import annotations

import torch

from mtmoe.config import Autocast


def is_bfloat16_fast(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware.

    A CPU without AVX512-BF16 or AMX emulates it, at a fifth of float32's speed.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(device: torch.device, choice: Autocast) -> torch.autocast:
    """The autocast context that `choice` means on `device`."""
    use = choice is Autocast.bfloat16 or (choice is Autocast.auto and is_bfloat16_fast(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=use)
