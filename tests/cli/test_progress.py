from __future__ import annotations

import io
import logging
import re
import sys
from pathlib import Path

import pytest

from mtmoe.cli import progress
from mtmoe.cli.main import main
from mtmoe.cli.progress import Progress, total_size


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_sizes_of_files_add_up_and_pipes_have_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 7)
    path = str(tmp_path / "a")
    assert total_size([path, path]) == 14
    assert total_size([path, "/dev/null"]) is None
    assert total_size([path, str(tmp_path / "none")]) is None


def test_a_summary_counts_what_was_done(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").write_text("Save\n\nOpen\n")
    options = ["--beam", "1", "--output", str(tmp_path / "out"), str(tmp_path / "in")]
    assert main(["translate", "--model", model, "--target-lang", "de", *options]) == 0
    out, error = capfd.readouterr()
    assert out == ""
    found = re.fullmatch(
        r"3 lines, (\d+) tokens in \d+\.\d s: [\d,.]+ lines/s, [\d,.]+ tokens/s\.\n", error
    )
    assert found
    assert int(found[1]) >= 4  # at least a piece and an end for each of two lines


def test_a_log_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = Progress(1000, 0, is_shown=True, has_bar=False)
    with shown.shown():
        for _ in range(7):
            with shown.measured():
                now[0] += 10
            shown.add(5, 50, int(now[0]) - 100)
    assert capsys.readouterr().err == (
        "15 lines, 0.5 lines/s, 3 %, 16:10 left\n30 lines, 0.5 lines/s, 6 %, 15:40 left\n"
    )


def test_a_terminal_gets_a_bar_below_the_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    log = logging.getLogger()
    handler = logging.StreamHandler(terminal)
    log.addHandler(handler)
    try:
        shown = Progress(100, 20, is_shown=True, has_bar=True)
        with shown.shown(), shown.measured():
            shown.add(3, 30, 60)
            logging.getLogger("mtmoe").warning("line 2 is long")
            shown.add(3, 30, 101)
    finally:
        log.removeHandler(handler)
    found = terminal.getvalue()
    assert "line 2 is long\n" in found
    assert "3 lines, " in found
    assert "100 %" in found
    assert " lines/s [" in found


def test_nothing_is_said_where_somebody_types(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress(None, 0, is_shown=False, has_bar=True)
    with shown.shown():
        shown.add(1, 2, 3)
    assert capsys.readouterr().err == ""
