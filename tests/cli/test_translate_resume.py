"""Killed wherever it may be and resumed, the output is that of a run that nobody killed."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mtmoe.cli.main import main
from mtmoe.inference import text
from tests.inference.tiny_model import TEXT

WORDS = (
    "Save",
    "the",
    "file.",
    "Open",
    "a",
    "new",
    "window.",
    "Delete",
    "close!",
    "Datei",
    "你",
    "👍",
)
FORMATS = {
    "plain": ("--n-best", "2", "--scores"),
    "tsv": ("--tsv", "text=2,target_lang=1"),
    "json": ("--json-input",),
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "FIRST_CHUNK", 3)
    monkeypatch.setattr(text, "CHUNK_LINES", 7)


def make_lines(kind: str, count: int) -> bytes:
    """Text, now and then empty, broken, or too long for the model."""
    draw, lines = random.Random(1), []
    for n in range(count):
        line = " ".join(draw.choices(WORDS, k=draw.choice([0, 1, 3, 6, 40])))
        target = draw.choice(["de", "fr", "xx"])
        if kind == "json":
            line = json.dumps({"text": line, "target_lang": target, "n": n}) if n % 9 else "{"
        lines.append(f"{target}\t{line}\t{n}" if kind == "tsv" else line)
    return "\r\n".join(lines).encode() + b"\n\xff\xfe\n"


def arguments(model: str, kind: str, output: Path, *more: str) -> list[str]:
    options = ("--device", "cpu", "--target-lang", "de", "--beam", "2", *FORMATS[kind], *more)
    return ["translate", "--model", model, *options, "--output", str(output)]


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


def run_and_kill(arguments: list[str], kill_at: int) -> int | None:
    """The exit code in a forked process; None if it was killed at its `kill_at`-th change."""
    process = os.fork()
    if not process:
        try:
            kill_before_change(kill_at)
            os._exit(main(arguments))
        finally:
            os._exit(70)
    status = os.waitpid(process, 0)[1]
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def kill_before_change(number: int) -> None:
    """Let this process be killed just before its `number`-th change of files on the disk."""
    left = [number]

    def watch(event: str, details: tuple[object, ...]) -> None:
        is_opened = event == "open" and str(details[0]).endswith((".part", ".new"))
        if is_opened or event in ("os.rename", "os.remove"):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


@pytest.mark.parametrize("kind", FORMATS)
def test_killed_and_resumed_it_is_the_same_byte_for_byte(
    model: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, output = make_lines(kind, 40), tmp_path / "out"
    give(monkeypatch, data)
    code = main(arguments(model, kind, tmp_path / "whole"))
    assert code == (0 if kind == "plain" else 2)
    resumed, wanted = arguments(model, kind, output, "--resume"), (tmp_path / "whole").read_bytes()
    draw, kills = random.Random(kind), 0
    give(monkeypatch, data)
    while (found := run_and_kill(resumed, draw.randint(1, 9))) is None:
        kills += 1
        assert not output.exists() or output.read_bytes() == wanted
        give(monkeypatch, data)
    assert found == code
    assert kills >= 2
    assert output.read_bytes() == wanted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


@pytest.fixture
def interrupted(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output that is half done."""
    output = tmp_path / "out"
    give(monkeypatch, make_lines("plain", 40))
    assert run_and_kill(arguments(model, "plain", output), 8) is None
    assert not output.exists()
    assert (tmp_path / "out.part.json").exists()
    return output


def refusal(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    found = capsys.readouterr().err
    assert found.count("error: ") == 1
    return found


def test_another_input_or_other_settings_are_refused(
    model: str,
    interrupted: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = make_lines("plain", 40)
    for other in (b"x" + data, data[:20], b""):
        give(monkeypatch, other)
        found = refusal(capsys, arguments(model, "plain", interrupted, "--resume"))
        assert "the input must begin with the " in found
    for option, message in (
        (("--beam", "3"), "beam must be as in the interrupted run (2), but is 3."),
        (("--long", "error"), "long must be as in the interrupted run ('split')"),
        (("--prefix", "a"), "prefix must be as in the interrupted run ('')"),
    ):
        give(monkeypatch, data)
        assert message in refusal(
            capsys, arguments(model, "plain", interrupted, "--resume", *option)
        )
    assert interrupted.with_name("out.part").exists()  # still there for the right call


def test_lines_that_were_not_read_yet_may_be_corrected(
    model: str, interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrected = make_lines("plain", 40)[:-3] + "".join(f"{line}\n" for line in TEXT).encode()
    give(monkeypatch, corrected)
    assert main(arguments(model, "plain", interrupted, "--resume", "--threads", "1")) == 0
    give(monkeypatch, corrected)
    assert main(arguments(model, "plain", interrupted.with_name("whole"))) == 0
    assert interrupted.read_bytes() == interrupted.with_name("whole").read_bytes()


def test_ctrl_c_says_how_to_go_on(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from mtmoe.inference.record_translator import RecordTranslator

    translate, calls = RecordTranslator.translate, []

    def interrupt_third(self: RecordTranslator, records: list[object]) -> object:
        calls.append(len(records))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return translate(self, records)

    monkeypatch.setattr(RecordTranslator, "translate", interrupt_third)
    give(monkeypatch, make_lines("plain", 40))
    assert main(arguments(model, "plain", tmp_path / "out")) == 130
    assert f"6 lines are done, in {tmp_path}/out.part; --resume goes on there." in caplog.text
