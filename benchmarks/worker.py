"""A process that builds what is to be timed, and runs it when asked: one row of a benchmark.

`python -m benchmarks.worker MODULE:FUNCTION` imports FUNCTION, which makes named `Call`s out of
options. `benchmarks.round_robin` starts it and talks to it in lines of JSON: {"build": options},
then {"run": name} any number of times, and {"peak": true} for the memory that it took. What the
libraries print goes to standard error.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO, Any

from benchmarks.process_tree import peak_bytes, shared_bytes, tree_of

MAX_MESSAGE = 300  # characters of an error


class NotRunnable(Exception):  # noqa: N818  (it is no error of the program)
    """The row cannot run with these options; the message says why."""


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Call:
    """What is timed, and what is done around it outside the clock."""

    run: Callable[[], Any]  # its result, if JSON can hold it, travels back
    before: Callable[[], object] = nothing
    after: Callable[[], object] = nothing

    def timed(self) -> dict[str, Any]:
        """Run once; {"seconds", "value"}."""
        self.before()
        start = time.perf_counter()
        value = self.run()
        seconds = time.perf_counter() - start
        self.after()
        return {"seconds": seconds, "value": value}


Builder = Callable[[dict[str, Any]], dict[str, Call]]


def serve(find_builder: Callable[[], Builder], requests: Iterable[str], replies: IO[str]) -> None:
    """Answer each request by one line, failures too; end with the requests.

    Beside its result, a reply tells how long the process waited for the request ("waited_seconds"),
    and how much CPU time all its threads used up meanwhile ("waited_cpu_seconds").
    """
    calls: dict[str, Call] = {}
    before = _clock()
    for line in requests:
        after = _clock()
        reply = _answer(json.loads(line), find_builder, calls)
        reply["waited_seconds"], reply["waited_cpu_seconds"] = (
            b - a for a, b in zip(before, after, strict=True)
        )
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
        before = _clock()


def _clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _answer(
    request: dict[str, Any], find_builder: Callable[[], Builder], calls: dict[str, Call]
) -> dict[str, Any]:
    try:
        if "run" in request:
            return calls[request["run"]].timed()
        if "peak" in request:
            return {"peak_bytes": peak_of_all()}
        calls.clear()
        gc.collect()  # what was timed before may be large
        calls.update(find_builder()(request["build"]))
        return {}
    except NotRunnable as reason:
        return {"error": str(reason)}
    except Exception as error:  # noqa: BLE001  (whatever a library raises is told, not fatal)
        message = " ".join(str(error).split())[:MAX_MESSAGE]
        return {"error": f"{type(error).__name__}: {message}"}


def peak_of_all() -> int:
    """The most memory that this process and its living children have held, each at its own time.

    Of a child, what it has beside pages that others have too: it may be a fork of its parent.
    """
    own, *children = tree_of(os.getpid())
    return peak_bytes(own) + sum(peak_bytes(n) - shared_bytes(n) for n in children)


def _find(name: str) -> Builder:
    module, _, function = name.partition(":")
    found: Builder = getattr(importlib.import_module(module), function)
    return found


def main() -> None:
    """Serve the driver on standard input and output."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        serve(lambda: _find(sys.argv[1]), sys.stdin, replies)


if __name__ == "__main__":
    importlib.import_module(
        "benchmarks.worker"
    ).main()  # the module that builders import, not a copy
