"""Count the bytes of tensors that are made while it is open, and of those that are still alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TensorMemory(TorchDispatchMode):
    """`with TensorMemory() as memory:` then `memory.live` and `memory.peak`, in bytes.

    Memory that an operator uses inside and gives back does not show. Tensors that exist before
    must be named in `known`.
    """

    def __init__(self, *known: torch.Tensor) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: dict[int, Any] = {}
        for tensor in known:
            self._watch(tensor, 0)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor, 0)
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor, tensor.untyped_storage().nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _watch(self, tensor: torch.Tensor, num_bytes: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return

        def forget(_: Any) -> None:
            self.live -= num_bytes
            del self._seen[key]

        self.live += num_bytes
        self._seen[key] = weakref.ref(storage, forget)
