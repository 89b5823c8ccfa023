from __future__ import annotations

import threading
import time

import pytest
import torch

from mtmoe.inference.workers import map_on_cores


def test_results_come_in_the_order_of_the_items() -> None:
    def late_if_early(item: int, stop: threading.Event) -> int:
        time.sleep((5 - item) * 0.01)
        return item * item

    assert map_on_cores(late_if_early, range(5), 3) == [0, 1, 4, 9, 16]


def test_each_worker_has_one_thread_and_the_caller_keeps_its_own() -> None:
    before = torch.get_num_threads()
    assert map_on_cores(lambda *_: torch.get_num_threads(), range(4), 2) == [1] * 4
    assert torch.get_num_threads() == before
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [before]


def test_a_failure_stops_the_others() -> None:
    begun: list[int] = []

    def fail_first(item: int, stop: threading.Event) -> None:
        begun.append(item)
        if item == 0:
            raise ValueError("item 0 failed")
        assert stop.wait(20)

    with pytest.raises(ValueError, match="item 0 failed"):
        map_on_cores(fail_first, range(50), 2)
    assert len(begun) < 50
