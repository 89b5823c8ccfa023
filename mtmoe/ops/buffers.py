"""Large tensors that are used again: on a CPU, fresh pages cost more than the sums made in them."""

from __future__ import annotations

import math
import threading
from typing import Any

import torch
from torch import Tensor


class BufferPool:
    """Memory by name, handed out again once nobody else holds it.

    A layer asks for the same tensors at every step (hidden states, gradients of stacked weights).
    The pool knows from the storage's count of references whether last step's tensor is still
    somebody's, e.g. a parameter's `.grad`; then, and when a larger one is wanted, it makes a new
    one. At most one tensor a name is kept, which adds nothing to the peak of a step.

    Args:
        keeps: False makes a new tensor each time. For activation checkpointing: memory that is
            kept is what it is to save, and it refuses a second pass with other allocations.
    """

    def __init__(self, keeps: bool = True) -> None:
        self.keeps = keeps
        self._kept: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def empty(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """A tensor of `shape` with the dtype and device of `like`, of any content."""
        if not self.keeps:
            return like.new_empty(shape)
        size = math.prod(shape)
        with self._lock:  # threads may share a layer
            kept = self._kept.get(name)
            if kept is None or not _is_usable(kept, like, size):
                kept = self._kept[name] = like.new_empty(size)
            return kept[:size].view(shape)  # a view of its own: a parameter may keep it as `.grad`

    def __deepcopy__(self, memo: Any) -> BufferPool:
        return BufferPool(self.keeps)

    def __reduce__(self) -> tuple[type[BufferPool], tuple[bool]]:
        return BufferPool, (self.keeps,)


def _is_usable(kept: Tensor, like: Tensor, size: int) -> bool:
    is_alike = kept.dtype == like.dtype and kept.device == like.device
    is_of_mode = kept.is_inference() == torch.is_inference_mode_enabled()
    return is_alike and is_of_mode and kept.numel() >= size and _num_holders(kept) == 1


def _num_holders(tensor: Tensor) -> int:
    """How many tensors share the memory of this one, itself included."""
    storage = tensor.untyped_storage()
    count = torch._C._storage_Use_Count(storage._cdata)
    return int(count) - 1  # `storage` itself
