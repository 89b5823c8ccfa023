"""The fastest matrix product that this CPU has, found out once."""

from __future__ import annotations

import contextlib
import logging
import threading
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch

from mtmoe.ops.precision import fastest_seconds, is_bfloat16_fast

logger = logging.getLogger(__name__)
PROBE_SHAPE = (256, 512, 1024)
MAX_ERROR = 1e-3  # of sums of 512 products of normal numbers; rounding to bfloat16 gives 1e-1
MIN_GAIN = 1.15


class _Switch:
    """torch's process-wide permission for float32 products to use bfloat16, held by some threads.

    It is granted while any thread is inside, and then as it was before the first one.
    """

    def __init__(self) -> None:
        self.setting: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        self.lock, self.num_users, self.before = threading.Lock(), 0, "none"

    def __enter__(self) -> None:
        with self.lock:
            if self.num_users == 0:
                self.before = self.setting.fp32_precision
                self.setting.fp32_precision = "bf16"
            self.num_users += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.num_users -= 1
            if self.num_users == 0:
                self.setting.fp32_precision = self.before


_allow_bfloat16 = _Switch()


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which products of `dtype` are made: bfloat16 in float32 where that is faster."""
    if dtype is torch.bfloat16 and not is_bfloat16_fast(torch.device("cpu")):
        return torch.float32
    return dtype


def fastest_float32() -> AbstractContextManager[None]:
    """Within it, float32 products go to MKL or to oneDNN, whichever is faster on this CPU."""
    return _allow_bfloat16 if is_onednn_faster() else contextlib.nullcontext()


@cache
def is_onednn_faster() -> bool:
    """Whether oneDNN's float32 product beats MKL's here, and really is float32.

    On AMD, MKL runs at half of oneDNN's speed. torch sends products to oneDNN if they are allowed
    to use bfloat16; a CPU without bfloat16 tiles then computes in float32 all the same. On one with
    them the result would be rounded, which the probe sees.
    """
    M, K, N = PROBE_SHAPE
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(M, K, generator=generator), torch.randn(K, N, generator=generator)
    seconds = {"MKL": fastest_seconds(lambda: x @ w)}
    with _allow_bfloat16:
        error = ((x @ w).double() - x.double() @ w.double()).abs().max().item()
        seconds["oneDNN"] = fastest_seconds(lambda: x @ w)
    is_faster = error < MAX_ERROR and seconds["oneDNN"] * MIN_GAIN < seconds["MKL"]
    logger.debug("float32 products: %s, error of oneDNN %.1e, %s", seconds, error, is_faster)
    return is_faster
