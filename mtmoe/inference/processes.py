"""Batches side by side on CPU cores, each core a process: threads would share Python's lock.

Processes are forked when the first work for several comes. They see the weights where the caller
has them; nothing is copied. The caller waits, hands out a batch to whoever is free, and ends them.

`concurrent.futures` has a pool, but its processes outlive a caller that is killed, since each holds
the others' pipe open, and one that works cannot be ended.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from mtmoe.errors import MtmoeError

Item = TypeVar("Item")
Result = TypeVar("Result")

GRACE_SECONDS = 5.0


def can_fork() -> bool:
    """Whether this process may be copied: on Linux, unless a pool of the caller's has made it.

    Elsewhere, system libraries do not live through it.
    """
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


class _Worker(NamedTuple):
    process: ForkProcess
    connection: Connection


class Processes(Generic[Item, Result]):
    """`num_processes` copies of this process, as it is at the first `map`, that run `function`.

    Args:
        function: a method, of one item; what it reads must not change after the first `map`. Its
            object is not kept alive.
    """

    def __init__(self, function: Callable[[Item], Result], num_processes: int) -> None:
        self._function, self._num = weakref.WeakMethod(function), num_processes
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _end, self._workers)

    def map(self, items: Sequence[Item]) -> list[Result]:
        """`function(item)` of each item, in order.

        If one fails, or Ctrl-C is pressed, all processes end; the next call begins new ones.

        Raises:
            MtmoeError: a process died; its error, if `function` raised one.
        """
        with self._lock:
            try:
                self._begin()
                return self._hand_out(items)
            except BaseException:
                _end(self._workers)
                raise

    def _begin(self) -> None:
        function = self._function()
        assert function is not None, "its object calls"
        context = multiprocessing.get_context("fork")
        while len(self._workers) < self._num:
            ours, theirs = context.Pipe()
            inherited = [ours, *(worker.connection for worker in self._workers)]
            process = context.Process(
                target=_serve, args=(function, theirs, inherited), name="translate", daemon=True
            )
            with warnings.catch_warnings():  # Python 3.12 warns of the threads of a library's pool
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()  # which is idle, and which copies do not use: they have one thread
            theirs.close()
            self._workers.append(_Worker(process, ours))

    def _hand_out(self, items: Sequence[Item]) -> list[Result]:
        results: dict[int, Result] = {}
        under_way: dict[Connection, int] = {}
        idle = [worker.connection for worker in self._workers]
        waiting = iter(range(len(items)))
        while len(results) < len(items):
            while idle and (number := next(waiting, None)) is not None:
                connection = idle.pop()
                _send(connection, items[number])
                under_way[connection] = number
            ready = set(wait(list(under_way)))
            for connection in [found for found in under_way if found in ready]:
                results[under_way.pop(connection)] = self._receive(connection)
                idle.append(connection)
        return [results[number] for number in range(len(items))]

    def _receive(self, connection: Connection) -> Result:
        try:
            result, error = connection.recv()
        except (EOFError, ConnectionError):
            process = next(w.process for w in self._workers if w.connection is connection)
            process.join(GRACE_SECONDS)
            code = process.exitcode
            raise MtmoeError(
                f"a process that translates has died (exit code {code}). "
                "If memory is short, take fewer --threads or a smaller --max-tokens."
            ) from None
        if error is not None:
            raise error
        found: Result = result
        return found


def _send(connection: Connection, item: Any) -> None:
    try:
        connection.send(item)
    except ConnectionError:  # it has died: reading tells how
        return


def _serve(function: Callable[[Any], Any], own: Connection, inherited: list[Connection]) -> None:
    """What a forked process does until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller ends it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for connection in inherited:  # or it would hold other processes' ends open
        connection.close()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)  # a pipe of the caller ends with the caller
    torch.set_num_threads(1)
    while True:
        try:
            item = own.recv()
        except (EOFError, ConnectionError):
            os._exit(0)
        result, error = None, None
        try:
            result = function(item)
        except Exception as found:  # noqa: BLE001  (it is raised where the result is wanted)
            error = found
        try:
            own.send((result, error))
        except ConnectionError:
            os._exit(0)


def _end(workers: list[_Worker]) -> None:
    """End all and forget them; `workers` is empty afterwards."""
    for worker in workers:
        worker.connection.close()
        worker.process.kill()
    for worker in workers:
        worker.process.join()
    workers.clear()
