from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mtmoe.errors import DataError, MtmoeError
from mtmoe.inference.engine import Translator
from mtmoe.inference.processes import Processes, can_fork
from mtmoe.inference.requests import Request
from mtmoe.inference.search_config import SearchConfig
from tests.golden.make import CHECKPOINT, SOURCE, TRANSLATION

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes are forked on Linux only")


class Work:
    """Whatever an item asks for."""

    def __init__(self) -> None:
        self.processes: Processes[int, tuple[int, int, int]] = Processes(self.run, 2)

    def run(self, item: int) -> tuple[int, int, int]:
        if item == -1:
            raise DataError("item -1 failed")
        if item == -2:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02 * (5 - item))
        return item * item, os.getpid(), torch.get_num_threads()


def is_there(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def test_results_come_in_order_from_two_processes_of_one_thread() -> None:
    work = Work()
    found = work.processes.map(range(5))
    assert [square for square, _, _ in found] == [0, 1, 4, 9, 16]
    processes = {process for _, process, _ in found}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert {threads for _, _, threads in found} == {1}
    assert {process for _, process, _ in work.processes.map(range(4))} == processes


def test_processes_end_with_their_object() -> None:
    work = Work()
    processes = {process for _, process, _ in work.processes.map(range(4))}
    assert all(map(is_there, processes))
    del work
    gc.collect()
    assert not any(map(is_there, processes))


def test_an_error_is_raised_and_the_next_call_works() -> None:
    work = Work()
    before = {process for _, process, _ in work.processes.map(range(4))}
    with pytest.raises(DataError, match="item -1 failed"):
        work.processes.map([4, -1, 3])
    assert not any(map(is_there, before))
    assert [square for square, _, _ in work.processes.map([2, 3])] == [4, 9]


def test_a_dead_process_is_told() -> None:
    work = Work()
    with pytest.raises(MtmoeError, match=r"has died \(exit code -9\)"):
        work.processes.map([4, -2, 3])
    assert [square for square, _, _ in work.processes.map([2, 3])] == [4, 9]


KILLED = """
import os, signal, sys
from tests.inference.test_processes import Work
work = Work()
found = {process for _, process, _ in work.processes.map(range(4))}
print(*found, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_end_when_their_caller_is_killed() -> None:
    found = subprocess.run(
        [sys.executable, "-c", KILLED], capture_output=True, text=True, check=False, timeout=60
    )
    processes = [int(word) for word in found.stdout.split()]
    assert (found.returncode, len(processes)) == (-signal.SIGKILL, 2), found.stderr
    deadline = time.monotonic() + 10
    while any(map(is_there, processes)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_translator_gives_the_same_with_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtmoe.inference.shares.SMALL_BATCH", 20)
    lines = SOURCE.read_text("utf-8").splitlines()
    one, two = (Translator.from_checkpoint(CHECKPOINT, threads=n) for n in (1, 2))
    assert two.translate(lines, "aa", "bb") == TRANSLATION.read_text("utf-8").splitlines()
    requests = [Request(line, "aa", "bb") for line in lines]
    config = SearchConfig(num_best=2)
    ranked = [translator.translate_requests(requests, config) for translator in (one, two)]
    assert ranked[0] == ranked[1]
    texts = [found[0].text for found in ranked[0]]
    scores = [[f.score for f in t.score(requests, texts, config)] for t in (one, two)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_a_worker_of_a_pool_translates_with_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemons may not have children."""
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    assert not can_fork()
    monkeypatch.setattr("mtmoe.inference.shares.SMALL_BATCH", 20)
    lines = SOURCE.read_text("utf-8").splitlines()
    found = Translator.from_checkpoint(CHECKPOINT, threads=2).translate(lines, "aa", "bb")
    assert found == TRANSLATION.read_text("utf-8").splitlines()
