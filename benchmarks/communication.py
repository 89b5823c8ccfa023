"""How long a process stands in collectives, those of FSDP2 and waiting for other ranks included."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

COLLECTIVES = ("all_to_all_single", "all_gather_single", "reduce_scatter_single", "all_reduce")


class CommunicationClock:
    """Counts the seconds in `torch.distributed`'s collectives, and in waiting for started ones.

    What a collective does while this process computes (FSDP2 starts some early) is not counted.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._is_inside = False

    def start(self) -> None:
        """Replace the collectives of this process by counted ones, to its end."""
        for name in COLLECTIVES:
            setattr(dist, name, self.timed(getattr(dist, name)))
        dist.Work.wait = self.timed(dist.Work.wait)  # type: ignore[method-assign]

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, whose time counts unless it is called within another one's."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._is_inside:
                return function(*args, **kwargs)
            self._is_inside, begin = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - begin
                self._is_inside = False

        return call
