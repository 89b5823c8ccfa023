from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import round_robin
from benchmarks.round_robin import (
    WARM_UPS,
    Row,
    RowError,
    build_rows,
    idle_load,
    open_workers,
    time_rows,
    worker_environment,
)


def toy(kind: str, name: str = "") -> Row:
    return Row(name or kind, f"tests.benchmarks.toy_rows:build_{kind}")


@pytest.fixture
def failures() -> dict[str, str]:
    return {}


@pytest.fixture
def on_failure(failures: dict[str, str]) -> Callable[[str, RowError], None]:
    return lambda row, error: failures.update({row: str(error)})


def test_rows_take_turns_in_processes_of_their_own(
    tmp_path: Path, on_failure: Callable[[str, RowError], None]
) -> None:
    file = tmp_path / "turns"
    with open_workers([toy("writer", "a"), toy("writer", "b")], 1) as workers:
        options = {name: {"file": str(file)} for name in workers}
        able = build_rows(workers, options, on_failure)
        seconds = time_rows(able, dict.fromkeys("ab", "write"), 3, on_failure)
        pids = [str(workers[name].run("write")["value"]) for name in "ab"]
    assert len(set(pids)) == 2
    assert file.read_text().split() == pids * (WARM_UPS + 3 + 1)
    assert {name: len(found) for name, found in seconds.items()} == {"a": 3, "b": 3}


def test_the_others_go_on_when_rows_fail(
    tmp_path: Path,
    failures: dict[str, str],
    on_failure: Callable[[str, RowError], None],
) -> None:
    rows = [toy(kind) for kind in ("refusing", "failing", "dying", "writer")]
    rows.append(Row("missing", "benchmarks.no_such_module:build"))
    with open_workers(rows, 1) as workers:
        options = {name: {"file": str(tmp_path / "turns")} for name in workers}
        able = build_rows(workers, options, on_failure)
        assert list(able) == ["failing", "dying", "writer"]
        seconds = time_rows(able, dict.fromkeys(able, "write"), 2, on_failure)
        assert list(seconds) == ["writer"]
        assert failures == {
            "refusing": "top-3 is not for me",
            "missing": "ModuleNotFoundError: No module named 'benchmarks.no_such_module'",
            "failing": "ValueError: two lines",
            "dying": "its process ended with exit code 3: out of everything",
        }
        time_rows(workers, {"dying": "write"}, 1, on_failure)
        assert failures["dying"] == "its process has ended"
        assert "dying" in build_rows(workers, options, on_failure)  # in a new process


def test_a_slow_row_is_timed_less_often(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    on_failure: Callable[[str, RowError], None],
) -> None:
    monkeypatch.setattr(round_robin, "PATIENCE", 0)
    with open_workers([toy("writer")], 1) as workers:
        build_rows(workers, {"writer": {"file": str(tmp_path / "turns")}}, on_failure)
        assert len(time_rows(workers, {"writer": "write"}, 5, on_failure)["writer"]) == 1


def test_an_interpreter_that_is_not_there_is_a_failure_of_its_row(
    failures: dict[str, str], on_failure: Callable[[str, RowError], None]
) -> None:
    with open_workers([Row("gone", "a:b", python="/no/such/python")], 1) as workers:
        assert build_rows(workers, {"gone": {}}, on_failure) == {}
    assert "/no/such/python" in failures["gone"]


def test_idle_load_tells_a_row_that_spins(
    tmp_path: Path, on_failure: Callable[[str, RowError], None]
) -> None:
    with open_workers([toy("writer"), toy("spinning")], 1) as workers:
        options = {name: {"file": str(tmp_path / "turns")} for name in workers}
        build_rows(workers, options, on_failure)
        for worker in workers.values():
            worker.run("write")
        time.sleep(0.3)
        for worker in workers.values():
            worker.run("write")
        load = idle_load(workers)
    assert load["writer"] < 0.05
    assert load["spinning"] > 0.1  # a whole core, if nothing else wants it


def test_each_row_has_its_own_options_and_call_and_as_many_warm_ups_as_wanted(
    tmp_path: Path, on_failure: Callable[[str, RowError], None]
) -> None:
    files = {name: str(tmp_path / name) for name in "ab"}
    with open_workers([toy("writer", "a"), toy("writer", "b")], 1) as workers:
        build_rows(workers, {name: {"file": files[name]} for name in "ab"}, on_failure)
        calls = {"a": "write", "b": "write_twice"}
        time_rows(workers, calls, 2, on_failure, warm_ups=1)
    assert {n: len(Path(file).read_text().split()) for n, file in files.items()} == {"a": 3, "b": 6}


def test_the_peak_of_memory_is_that_of_a_row_and_its_children(
    tmp_path: Path, on_failure: Callable[[str, RowError], None]
) -> None:
    with open_workers([toy("writer"), toy("forking")], 1) as workers:
        build_rows(workers, {name: {"file": str(tmp_path)} for name in workers}, on_failure)
        workers["forking"].run("fork")
        small, large = (workers[name].peak_bytes() for name in ("writer", "forking"))
    assert 1e6 < small < 1e9
    assert small + 100e6 < large < small + 150e6  # pages that both share count once
    with pytest.raises(RowError, match="its process has ended"):
        workers["forking"].peak_bytes()


def test_workers_have_their_threads_and_no_setting_that_makes_them_spin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    found = worker_environment(2)
    assert "OMP_WAIT_POLICY" not in found
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("2", "2")
