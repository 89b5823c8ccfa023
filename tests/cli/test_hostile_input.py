"""Whatever comes in, as many lines go out, in the same order."""

from __future__ import annotations

import json
import os
import pty
import random
import resource
import select
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from mtmoe.cli.main import main
from mtmoe.inference import text
from mtmoe.inference.engine import Translator
from mtmoe.inference.requests import Request, Translation
from tests.cli.conftest import Run
from tests.inference.tiny_model import write_tiny_checkpoint

GREEDY = ("--target-lang", "de", "--beam", "1")
KNOWN = "Save the file."
HOSTILE = {
    "invalid UTF-8": b"\xff\xfe\x80 M\xfcnchen \xed\xa0\x80",
    "overlong UTF-8": b"\xc0\xaf\xf8\x88\x80\x80\x80",
    "NUL": b"\0Save\0\0the file.\0",
    "only spaces": b"   ",
    "all kinds of blanks": " \t \u00a0\u2003\u3000\u200b\ufeff ".encode(),
    "line separators": "Save\u2028the\u2029file\x85now\v\f\x1c".encode(),
    "a lone carriage return": b"Save\rthe file.\r\r",
    "emoji": "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 Save".encode(),
    "combining marks": ("e" + "\u0301" * 500).encode(),
    "right to left": "\u202eاحفظ الملف\u202c שמור את הקובץ \u2066x\u2069".encode(),
    "special symbols": b"<s> </s> <unk> <pad> __de__ __en__ \xe2\x96\x81",
    "unassigned and private": "\uffff \U0010ffff \ue000 \ufffe".encode(),
    "control sequences": b"\x1b[31mred\x1b[0m \x07\x08\x7f",
}


def answers(out: str) -> list[str]:
    assert out.endswith("\n")
    return out.split("\n")[:-1]


def test_each_line_has_its_answer_between_its_neighbours(run: Run, model: str) -> None:
    data = b"".join(KNOWN.encode() + b"\n" + line + b"\r\n" for line in HOSTILE.values())
    code, out, _ = run(*GREEDY, text=data + KNOWN.encode())
    found = answers(out)
    known = Translator.from_checkpoint(model).translate([KNOWN], "en", "de", beam=1)
    assert (code, len(found)) == (0, 2 * len(HOSTILE) + 1)
    assert found[::2] == known * (len(HOSTILE) + 1)
    assert not set("\0\r\x85\u2028\u2029\x1b") & set("".join(found))
    assert found[1::2][list(HOSTILE).index("only spaces")] == "   "


def test_lone_surrogates_are_translated_and_written_again(run: Run) -> None:
    line = '{"text": "\\ud800 Save", "prefix": "\\udfff", "x": "\\ud83d\\ude00 \\udc00"}\n'
    code, out, _ = run(*GREEDY, "--json-input", text=line.encode())
    found = json.loads(out)
    assert (code, found["text"], found["x"]) == (0, "\ud800 Save", "\U0001f600 \udc00")
    assert out.isascii()


def test_nesting_that_python_reads_but_cannot_write_ends_no_run(run: Run) -> None:
    lists = ["[" * depth + "]" * depth for depth in range(800, 1000)]
    text = "".join(f'{{"text": "", "x": {nested}}}\n{{"text": {nested}}}\n' for nested in lists)
    code, out, _ = run(*GREEDY, "--json-input", text=text.encode())
    found = [json.loads(line) for line in answers(out)]
    assert (code, len(found)) == (2, len(lists) * 2)
    assert all("error" in line or line["x"] for line in found)


@pytest.mark.parametrize("options", [(), ("--scores",), ("--json",), ("--tsv", "1")])
def test_random_bytes_stay_lines_in_every_format(run: Run, options: tuple[str, ...]) -> None:
    draw = random.Random(1)
    data = b"".join(
        draw.randbytes(draw.randrange(12)).replace(b"\n", b" ") + b"\n" for _ in range(99)
    )
    code, out, _ = run(*GREEDY, *options, text=data)
    assert (code, len(answers(out))) == (0, 99)


@pytest.mark.parametrize(
    "line",
    ["o" * 100_000, " " * 100_000, "Save the file. " * 6_667, "\t" * 100_000, "a\t" * 50_000],
    ids=["a word", "blanks", "sentences", "tabs", "cells"],
)
def test_a_line_of_100_000_characters_is_split_and_told(
    run: Run, line: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Translator, "_search_parts", lambda *a: _Stub())  # all but the search
    code, out, _ = run(*GREEDY, text=f"{KNOWN}\n{line}\n{KNOWN}\n".encode())
    assert (code, len(answers(out))) == (0, 3)
    if line[0] == "o" or line[0] == "S":
        assert "standard input line 2 is long: " in caplog.text


class _Stub(dict[object, object]):
    """A translation of everything."""

    def __missing__(self, part: object) -> object:
        return [Translation("x", -1.0, ("x", "</s>"), (-0.5, -0.5))]


def test_too_long_a_line_keeps_its_place_in_every_format(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(text, "MAX_LINE_BYTES", 50)
    data = b"Save\n" + b"x" * 51 + b"\nOpen\n"
    code, out, error = run(*GREEDY, text=data)
    assert (code, answers(out)[1], len(answers(out))) == (2, "", 3)
    assert "1 of 3" in error
    assert "bytes, but standard input line 2 has 51. Split it." in caplog.text


def test_memory_does_not_grow_with_the_input(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20,000 lines need no more than 2,000: what is read, sorted and written is not kept."""
    monkeypatch.setattr(text, "CHUNK_LINES", 256)
    monkeypatch.setattr(Translator, "translate_requests", _translate_at_once)
    peaks = []
    for count in (2_000, 20_000):
        lines = (f"Save the file number {n:05d}!\n" for n in range(count))
        (tmp_path / "in").write_text("".join(lines))
        options = ("--output", str(tmp_path / "out"), "--quiet", str(tmp_path / "in"))
        tracemalloc.start()
        assert main(["translate", "--model", model, *GREEDY, *options]) == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (tmp_path / "out").read_bytes().count(b"\n") == count
    assert peaks[1] < 1.1 * peaks[0]


def _translate_at_once(_: Translator, requests: list[Request], *__: object) -> object:
    return [[Translation(request.text, -1.0, ("x", "</s>"), (-0.5, -0.5))] for request in requests]


@pytest.fixture
def typed(model: str) -> object:
    """`mtmoe translate` at a terminal: its process, and the terminal's other end."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mtmoe.cli.main", "translate", "--model", model, *GREEDY]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(theirs)
    yield process, ours
    process.kill()
    process.wait()
    os.close(ours)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read_until(terminal: int, wanted: str, seconds: float = 60) -> str:
    found, end = "", time.monotonic() + seconds
    while wanted not in found and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                found += os.read(terminal, 4096).decode()
            except OSError:  # the other end is closed
                break
    assert wanted in found, found
    return found


def test_who_types_a_line_gets_its_translation_and_ctrl_c_ends(
    typed: tuple[subprocess.Popen[bytes], int], model: str
) -> None:
    process, terminal = typed
    read_until(terminal, "Ctrl-D ends.")
    for line in (KNOWN, "Open"):
        wanted = Translator.from_checkpoint(model).translate([line], "en", "de", beam=1)[0]
        os.write(terminal, f"{line}\n".encode())
        read_until(terminal, f"{line}\r\n{wanted}\r\n")
    os.write(terminal, b"\x03")
    shown = read_until(terminal, "interrupted.")
    assert "Traceback" not in shown
    assert process.wait(timeout=20) == 130


def test_ctrl_c_in_the_middle_of_work_has_no_traceback(model: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("Save the file, open a window.\n" * 10 + "Save %d\n" * 50_000)
    code = "import sys; from mtmoe.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "translate", "--model", model, *GREEDY]
    process = subprocess.Popen(
        [*command, str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--json"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not (tmp_path / "out.part.json").exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "--resume goes on there." in error
    assert not (tmp_path / "out").exists()


def test_full_disk_and_closed_pipe_leave_no_traceback(model: str) -> None:
    mtmoe = f"{sys.executable} -m mtmoe.cli.main translate --model {model} --target-lang de"
    script = f"""
        {mtmoe} --quiet <<<Save >/dev/full; echo $? >&2
        yes Save | head -3000 | {mtmoe} --quiet | head -1; echo ${{PIPESTATUS[2]}} >&2
    """
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert found.stderr == "error: No space left on device.\n1\n141\n"
    assert found.stdout.count("\n") == 1


@pytest.mark.slow
def test_a_line_of_100_000_characters_in_full(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    small = str(write_tiny_checkpoint(folder, embed_dim=8, ffn_dim=8))
    line = "Save the file. Delete the selected files? " * 2_381
    code, out, _ = run(*GREEDY, text=f"Save\n{line}\nOpen\n".encode(), model=small)
    assert (code, len(answers(out))) == (0, 3)
