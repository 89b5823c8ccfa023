"""How large the tiles of each kernel are: plain functions of dtype and shape.

`@triton.autotune` does not run in Triton's interpreter, and its choice could differ between ranks.
Every choice made here compiles for sm_80 and sm_90 without spilling registers;
`tests/ops/triton/test_compile.py` checks those that need most of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mtmoe.errors import ConfigError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Blocks(NamedTuple):
    """The tile of one program of a grouped matrix product, and how a GPU runs it."""

    rows: int
    columns: int
    depth: int  # of one step along the dimension that is summed over
    num_warps: int
    num_stages: int  # steps whose loads are in flight

    @property
    def arguments(self) -> dict[str, int]:
        """As keyword arguments of a kernel's launch."""
        return {
            "ROWS": self.rows,
            "COLUMNS": self.columns,
            "DEPTH": self.depth,
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
        }


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse what the kernels do not compute.

    Raises:
        ConfigError: it is neither float32 nor a half precision.
    """
    if dtype not in DTYPES:
        allowed = ", ".join(map(str, DTYPES))
        raise ConfigError(f"dtype must be one of {allowed}, but is {dtype}. Use backend=torch.")


def rows_per_tile(dtype: torch.dtype, num_rows: int, num_experts: int) -> int:
    """Rows of one tile: the mean load of an expert, rounded up to a power of two from 16.

    A tile never spans two experts, so that a larger one would mostly compute rows that are not
    there; a smaller one reads the weights more often. float32 has no tensor cores here and stops
    at 64 for want of registers.
    """
    largest = 64 if dtype == torch.float32 else 128
    rows = 16
    while rows < largest and rows * num_experts < num_rows:
        rows *= 2
    return rows


def product_blocks(x: Tensor, weight: Tensor, rows: int, num_live: int = 1) -> Blocks:
    """Tiles of x @ weight.

    Args:
        x: (R, A) rows.
        weight: (E, A, B).
        rows: of `rows_per_tile`.
        num_live: float32 tiles that a program holds at once, if its last step needs more than the
            sum: 2 for the gradient of GELU and for SwiGLU.
    """
    num_warps = 8 if rows >= 64 else 4
    if x.dtype == torch.float32:
        return Blocks(rows, 64, 16, num_warps, 3) if num_live == 1 else Blocks(rows, 32, 16, 4, 3)
    if not is_aligned(*weight.shape[1:]):
        return Blocks(rows, 32, 32, num_warps, 2)
    return Blocks(rows, 128 if num_live == 1 else 64, 64, num_warps, 3)


def weight_gradient_blocks(rows: Tensor, grad: Tensor) -> Blocks:
    """Tiles of rows^T @ grad: (rows, columns) of the weight; `depth` runs over tokens."""
    if rows.dtype == torch.float32:
        return Blocks(64, 64, 16, 4, 3)
    if not is_aligned(rows.shape[1], grad.shape[1]):
        return Blocks(64, 64, 32, 8, 2)
    return Blocks(128, 128, 64, 8, 3)


def readable(weight: Tensor) -> Tensor:
    """The same (E, A, B) weight, copied where the kernels would read it slowly.

    Tensor cores read transposed tiles of half precision as well. In float32, such a product takes
    4.6 times as long (H200, docs/kernels.md); a copy takes a fifth of a product.
    """
    is_transposed = weight.dtype == torch.float32 and weight.stride(-1) != 1
    return weight.contiguous() if is_transposed else weight


def is_aligned(*widths: int) -> bool:
    """Whether rows of these widths are read 16 bytes at a time; else each number has an address."""
    return all(width % 16 == 0 for width in widths)
