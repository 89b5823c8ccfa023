"""Batches side by side on CPU cores: one core each, instead of all cores for each operation.

Decoding is made of many small operations. With several threads inside each of them, every operation
waits for the slowest thread: on cores that others use too, that made translating a hundred times
slower than one thread does (docs/translate.md). And results do not depend on the number of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on_cores(
    function: Callable[[Item, threading.Event], Result], items: Iterable[Item], num_threads: int
) -> list[Result]:
    """`function(item, stop)` of each item, `num_threads` of them at a time; results in order.

    If one fails, or Ctrl-C is pressed, `stop` is set and no further item is begun.
    """
    before = torch.get_num_threads()
    stop = threading.Event()
    pool = ThreadPoolExecutor(num_threads, "translate", torch.set_num_threads, (1,))
    try:
        with pool:
            try:
                return list(pool.map(lambda item: function(item, stop), items))
            except BaseException:
                stop.set()
                raise
    finally:
        torch.set_num_threads(before)  # the workers' 1 would be the default of later threads
