"""The same work on many things, on all cores of the machine, with progress."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def map_on_cores(
    work: Callable[[Item], Outcome], items: Iterable[Item], label: str, num_waiting: int = 0
) -> Iterator[Outcome]:
    """The outcomes of `work`, in the order of `items`; an error of any ends all.

    Forked processes share what the parent has loaded, the language identifier for one.

    Args:
        label: stands before the progress bar, which a terminal sees.
        num_waiting: at most so many items are taken before their outcomes are fetched (0: all).
    """
    items = list(items) if not num_waiting else items
    bar = tqdm(desc=label, total=len(items) if isinstance(items, list) else None, disable=None)
    with bar:
        few = num_cores() == 1 or (isinstance(items, list) and len(items) < 2)
        outcomes = map(work, items) if few else _map_forked(work, items, num_waiting)
        for outcome in outcomes:
            bar.update()
            yield outcome


def _map_forked(
    work: Callable[[Item], Outcome], items: Iterable[Item], num_waiting: int
) -> Iterator[Outcome]:
    sys.stdout.flush()
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(num_cores(), mp_context=context) as pool:
        try:
            waiting = []
            for item in items:
                waiting.append(pool.submit(work, item))
                if num_waiting and len(waiting) > num_waiting:
                    yield waiting.pop(0).result()
            for future in waiting:
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
