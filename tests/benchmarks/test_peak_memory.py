from __future__ import annotations

import sys

from benchmarks.peak_memory import watch

CHILDREN = """
import multiprocessing, time
def hold():
    data = bytes(b"x") * 60_000_000
    time.sleep(1.5)
multiprocessing.set_start_method("fork")
processes = [multiprocessing.Process(target=hold) for _ in range(2)]
for process in processes: process.start()
for process in processes: process.join()
raise SystemExit(3)
"""


def test_the_memory_of_all_processes_counts():
    result = watch([sys.executable, "-c", CHILDREN], 0.1)
    assert result["exit_code"] == 3
    assert 120e6 < result["peak_bytes"] < 200e6
    assert 1.5 < result["seconds"] < 20
