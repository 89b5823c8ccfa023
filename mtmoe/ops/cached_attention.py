"""Attention of a few new positions to what a cache holds, for translating on a CPU.

The definition is `F.scaled_dot_product_attention`, which PyTorch makes of small products with work
around each; one pass over the cache takes a fifth of its time (docs/translate.md).
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from mtmoe.config import WeightType
from mtmoe.ops import native


def cache_dtype(kind: WeightType) -> torch.dtype:
    """Of keys and values that stand beside weights of `kind`, where caches are read in one pass."""
    return torch.float32 if kind is WeightType.float32 else torch.bfloat16


def can_attend(head_dim: int) -> bool:
    """Whether `attend` is to be had for heads of this size."""
    fits = head_dim % native.LANES == 0 and head_dim <= native.MOST_LANES
    return fits and native.library() is not None


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
    """Attend from queries to keys and values; the bits depend on what is visible only.

    Args:
        query: (B, H, K, d) float32.
        key: (B, H, S, d) float32 or bfloat16, as `value`.
        visible: broadcastable to (B, 1, K, S): bool, True where attention is allowed; or float32,
            added to the scores. None: everywhere.

    Returns:
        (B, K, H * d) float32; zeros where nothing is visible.
    """
    library = native.library()
    assert library is not None, "see can_attend"
    B, H, K, d = query.shape
    shape = native.AttentionShape(B, H, K, key.shape[2], d, scale=d**-0.5)
    shape.query, shape.key, shape.value = _steps(query), _steps(key), _steps(value)
    shape.is_bfloat16 = key.dtype == torch.bfloat16
    if visible is not None:
        seen = visible.expand(B, 1, K, key.shape[2])
        shape.visible = native.Steps(seen.stride(0), seen.stride(2), seen.stride(3))
        shape.visible_kind = 1 if visible.dtype == torch.bool else 2
    out = query.new_empty(B, K, H * d)
    tensors = (query, key, value, visible, out)
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    if library.attend(ctypes.byref(shape), *pointers):
        raise MemoryError("no memory for the scores of attention")
    return out


def _steps(x: Tensor) -> ctypes.Array[ctypes.c_int64]:
    assert x.stride(3) == 1, "numbers of one head lie side by side"
    return native.Steps(*x.stride()[:3])
