"""Rows of a benchmark in processes of their own, timed in turns.

In one process, the thread pools and settings of one library slow down another. Each row is a
`benchmarks.worker`; the driver asks them one after the other, one call each a round, so that
whatever else the machine does meets all of them. While one works the others sleep: OpenMP threads
spin for some milliseconds after their work, and `PAUSE` lets them end.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mtmoe.errors import describe_failure

ROOT = Path(__file__).parents[1]
PAUSE = 0.05  # seconds before each call; OpenMP's spinning ends in 10 to 20 milliseconds
WARM_UPS = 2  # calls of each row that are not counted, unless told otherwise
TIMEOUT = 600  # seconds for one request
PATIENCE = 120  # seconds of calls after which a row is timed no more, if it has one time
SPINNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_PROC_BIND")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class RowError(Exception):
    """A row cannot do what it was asked; one line says why."""


@dataclass(frozen=True)
class Row:
    """What one worker times."""

    name: str
    build: str  # "module:function" that makes the calls, see `benchmarks.worker`
    python: str = sys.executable


class Worker:
    """The process of a row; started when first needed, and anew after it died."""

    def __init__(self, row: Row, num_threads: int) -> None:
        self.row, self.num_threads = row, num_threads
        self.process: subprocess.Popen[bytes] | None = None
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (`close` does)
        self.waited = self.waited_cpu = 0.0  # seconds between calls, and the CPU time they used

    def build(self, options: Mapping[str, Any]) -> None:
        """Make the calls of `options`; those of earlier ones are gone.

        Raises:
            RowError: the row cannot.
        """
        self._ask({"build": dict(options)})

    def run(self, call: str) -> dict[str, Any]:
        """Run the call of that name once, after a pause; {"seconds", "value"} and more.

        Raises:
            RowError: it failed, or the process died.
        """
        if self.process is None:
            raise RowError("its process has ended")
        time.sleep(PAUSE)
        reply = self._ask({"run": call})
        self.waited += reply["waited_seconds"]
        self.waited_cpu += reply["waited_cpu_seconds"]
        return reply

    def peak_bytes(self) -> int:
        """The most memory that its process, children included, has held.

        Raises:
            RowError: the process died.
        """
        if self.process is None:
            raise RowError("its process has ended")
        return int(self._ask({"peak": True})["peak_bytes"])

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None
        self.log.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self.process = self.process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it died: its silence says so below
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        if not select.select([process.stdout], [], [], TIMEOUT)[0]:
            process.kill()
            self._bury(process)
            raise RowError(f"no answer within {TIMEOUT} seconds")
        line = process.stdout.readline()
        if not line:
            raise RowError(self._bury(process))
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RowError(reply["error"])
        return reply

    def _start(self) -> subprocess.Popen[bytes]:
        """In a session of its own: Ctrl-C reaches the driver, which ends its workers."""
        try:
            return subprocess.Popen(
                [self.row.python, "-m", "benchmarks.worker", self.row.build],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                cwd=ROOT,
                env=worker_environment(self.num_threads),
                start_new_session=True,
            )
        except OSError as error:
            raise RowError(f"its process cannot start: {describe_failure(error)}") from None

    def _bury(self, process: subprocess.Popen[bytes]) -> str:
        process.communicate()
        self.process = None
        self.log.seek(0)
        lines = self.log.read().decode("utf-8", "replace").strip().splitlines()
        last = f": {lines[-1].strip()}" if lines else ""
        return f"its process ended with exit code {process.returncode}{last}"


def worker_environment(num_threads: int) -> dict[str, str]:
    """This process's environment with `num_threads` threads and each library's own waiting."""
    kept = {name: value for name, value in os.environ.items() if name not in SPINNING}
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    return kept | dict.fromkeys(THREADS, str(num_threads)) | {"PYTHONPATH": path}


@contextlib.contextmanager
def open_workers(rows: Sequence[Row], num_threads: int) -> Iterator[dict[str, Worker]]:
    """A worker for each row, by name; they end with the block."""
    workers = {row.name: Worker(row, num_threads) for row in rows}
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def build_rows(
    workers: Mapping[str, Worker],
    options: Mapping[str, Mapping[str, Any]],
    on_failure: Callable[[str, RowError], object],
) -> dict[str, Worker]:
    """Build each row's own `options` in its worker; those that can."""
    able = {}
    for name, worker in workers.items():
        try:
            worker.build(options[name])
        except RowError as error:
            on_failure(name, error)
        else:
            able[name] = worker
    return able


def time_rows(
    workers: Mapping[str, Worker],
    calls: Mapping[str, str],
    rounds: int,
    on_failure: Callable[[str, RowError], object],
    on_round: Callable[[], object] = lambda: None,
    warm_ups: int = WARM_UPS,
) -> dict[str, list[float]]:
    """The seconds of `rounds` calls of each row, in turns; a row that fails is left out.

    A row that took more than `PATIENCE` in all has fewer: it cannot hold up the others for hours.

    Args:
        calls: the name of each row's call.
        on_failure: is told the row's name and why.
        on_round: is called after each of the `warm_ups + rounds` rounds.
        warm_ups: calls of each row that are not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    for number in range(warm_ups + rounds):
        for name in list(seconds):
            if spent[name] > PATIENCE and seconds[name]:
                continue
            try:
                reply = workers[name].run(calls[name])
            except RowError as error:
                del seconds[name]
                on_failure(name, error)
            else:
                spent[name] += reply["seconds"]
                if number >= warm_ups:
                    seconds[name].append(reply["seconds"])
        on_round()
    return seconds


def idle_load(workers: Mapping[str, Worker]) -> dict[str, float]:
    """The share of one core that each worker used while it waited; near 0 unless threads spin."""
    return {name: w.waited_cpu / w.waited for name, w in workers.items() if w.waited > 0}
