"""Experts that are in memory, of those that may lie in a file."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """An expert."""

    @property
    def num_bytes(self) -> int:
        """Of its weights."""


Expert = TypeVar("Expert", bound=Sized)


class ExpertMemory(Generic[Expert]):
    """The experts that have been used, of all layers; threads may share it.

    Args:
        num_bytes: room for weights; when it is full, those go that have not been used for longest.
            One always stays.
    """

    def __init__(self, num_bytes: float) -> None:
        self.num_bytes, self.num_used = num_bytes, 0
        self._kept: OrderedDict[tuple[int, int], Expert] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int], make: Callable[[], Expert]) -> Expert:
        """The expert `key`, made if it is not there."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
                self.num_used += self._kept[key].num_bytes
            self._kept.move_to_end(key)
            while self.num_used > self.num_bytes and len(self._kept) > 1:
                self.num_used -= self._kept.popitem(last=False)[1].num_bytes
            return self._kept[key]
