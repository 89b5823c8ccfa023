"""Lines stream through `mtmoe translate` in memory that does not grow with their number."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import stream
from benchmarks.stream import check_lines, write_lines
from mtmoe.errors import ConfigError, MtmoeError, run_command

SLACK_MIB = 60


def run_stream(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str
) -> list[dict[str, float]]:
    monkeypatch.setattr(sys, "argv", ["stream", *words])
    assert run_command(stream.main) == 0
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_lines_are_made_up_alike_and_differ(tmp_path: Path) -> None:
    write_lines(tmp_path / "a", 500)
    write_lines(tmp_path / "b", 500)
    lines = (tmp_path / "a").read_text().splitlines()
    assert (tmp_path / "b").read_text().splitlines() == lines
    assert len(lines) == 500
    assert len(set(lines)) > 400
    with pytest.raises(MtmoeError, match="the output must have 501 lines, but has 500"):
        check_lines(tmp_path / "a", 501)


def test_wrong_options_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["stream", "--lines", "10,x"])
    with pytest.raises(ConfigError, match="--lines must be a whole number of at least 1"):
        stream.main()


@pytest.mark.slow
def test_a_short_run_tells_time_and_memory(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    small, large = run_stream(monkeypatch, capfd, "--lines", "3000,200", "--threads", "1")
    assert (small["lines"], large["lines"]) == (200, 3000)
    assert 50 < small["peak_mib"] < large["peak_mib"] + SLACK_MIB
    assert large["code"] == 0


@pytest.mark.long
def test_a_million_lines_need_no_more_memory_than_a_tenth_and_can_be_killed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tenth, million, resumed = run_stream(monkeypatch, capfd, "--kill")
    assert (tenth["lines"], million["lines"]) == (100_000, 1_000_000)
    assert million["peak_mib"] < tenth["peak_mib"] + SLACK_MIB
    assert resumed["same"]
    assert resumed["kills"] >= 1
