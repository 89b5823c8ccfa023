from __future__ import annotations

import io
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mtmoe.cli.main import main
from mtmoe.inference.engine import Translator
from tests.inference.tiny_model import write_tiny_checkpoint

LAST = "Delete the selected files?"
TEXT = f"Save\n\n{LAST}\n"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("model")))


@pytest.fixture
def run(model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(
        *options: str, text: bytes = TEXT.encode(), model: str = model
    ) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
        code = main(["translate", "--model", model, "--device", "cpu", *options])
        return code, *capsys.readouterr()

    return call


def expected(model: str, lines: list[str], source: str, target: str, **options: float) -> str:
    found = Translator.load(model).translate(lines, source, target, **options)
    return "".join(f"{line}\n" for line in found)


def test_line_in_line_out_and_nothing_else(run: Run, model: str) -> None:
    lines = TEXT.split("\n")[:3]
    assert run("--target-lang", "de") == (0, expected(model, lines, "en", "de"), "")
    assert run("--target-lang", "de")[1].split("\n")[1] == ""


def test_options_reach_the_search(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[tuple[int, ...]] = []
    load = Translator.load
    monkeypatch.setattr(Translator, "load", lambda *a: threads.append(a[2:]) or load(*a))
    options = ("--beam", "3", "--length-penalty", "0.5", "--max-tokens", "30", "--threads", "1")
    found = run("--source-lang", "fr", "--target-lang", "en", *options)
    wanted = expected(model, ["Save", "", LAST], "fr", "en", beam=3, length_penalty=0.5)
    assert found == (0, wanted, "")
    assert threads[0] == (1,)


def test_an_input_without_lines_gives_none(run: Run) -> None:
    assert run("--target-lang", "de", text=b"") == (0, "", "")


def test_files_are_read_and_written_whole(run: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(TEXT.encode())
    options = ("--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"))
    assert run("--target-lang", "fr", *options) == (0, "", "")
    lines = TEXT.split("\n")[:3]
    assert (tmp_path / "out").read_text() == expected(model, lines, "en", "fr")
    (tmp_path / "in").write_bytes(b"Save\n\xff\n")
    code, out, error = run("--target-lang", "de", *options)
    assert (code, out, f"{tmp_path}/in line 2 " in error) == (2, "", True)
    assert (tmp_path / "out").read_text() == expected(model, lines, "en", "fr")  # as before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_lines_ahead_of_a_bad_one_are_translated(run: Run, model: str) -> None:
    code, out, error = run("--target-lang", "de", text=b"Save\nM\xfcnchen\nOpen\n")
    assert (code, out) == (2, expected(model, ["Save"], "en", "de"))
    assert error.startswith(
        "error: text must be UTF-8, but standard input line 2 has the byte 0xfc"
    )


def test_a_direction_that_was_not_trained_is_warned_of(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    assert run("--source-lang", "de", "--target-lang", "fr")[0] == 0
    assert "not trained on de-fr, but on de-en, en-de, en-fr, fr-en: zero-shot" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beam", "0"], "beam must be between 1 and 200, but is 0."),
        (["--max-tokens", "-1"], "max_tokens must be at least 1, but is -1."),
        (["--length-penalty", "nan"], "length_penalty must be a finite number, 0 or above"),
        (["--threads", "0"], "--threads must be at least 1, but is 0."),
        (["--beam", "x"], "argument --beam: invalid int value: 'x'"),
        (["--bean", "1"], "unrecognized arguments: --bean 1"),
        (["--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
        (["--target-lang", "xx"], "target language must be one of de, en, fr, but is 'xx'."),
        (["--source-lang", "xx"], "source language must be one of de, en, fr, but is 'xx'."),
        (["--source-lang", "de"], "must differ from the source language, but both are 'de'."),
        (["--target-lang", "en"], "source language must be named to translate into 'en'"),
        (["--input", "/none/text"], "--input must be a file, but is not there: /none/text."),
        (["--input", "/"], "--input must be a file, but is a folder: /."),
        (
            ["--output", "/none/out"],
            "--output must lie in a folder that is there, but is /none/out.",
        ),
        (["--output", "/"], "--output must be a file, but is a folder: /."),
        (["--output", ""], "--output must be a file, but its name is empty."),
        (["--model", ""], "checkpoint must be a file, but its name is empty."),
        (["--model", "/"], "checkpoint must be a file, but is a folder: /. Name a file in it."),
        (["--model", "/none/x.pt"], "checkpoint must be a file, but is not there: /none/x.pt."),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    run: Run, options: list[str], message: str
) -> None:
    code, out, error = run("--target-lang", "de", *options)
    assert (code, out) == (2, "")
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_damaged_checkpoint_is_told(run: Run, model: str, tmp_path: Path) -> None:
    whole = Path(model).read_bytes()
    for name, data, what in (
        ("cut.pt", whole[: len(whole) // 2], "is cut off or damaged"),
        ("text.pt", b"import torch\n", "is no checkpoint"),
    ):
        (tmp_path / name).write_bytes(data)
        code, out, error = run("--target-lang", "de", model=str(tmp_path / name))
        assert (code, out, error.count("\n")) == (2, "", 1)
        assert f"{name} {what}. Give another file." in error


@pytest.mark.parametrize(
    ("closed", "message"),
    [
        ("<&-", "standard input must be open, but is closed. Give --input FILE."),
        (">&-", "standard output must be open, but is closed. Lead it to a file"),
    ],
)
def test_a_closed_stream_is_one_sentence(model: str, closed: str, message: str) -> None:
    words = [sys.executable, "-m", "mtmoe.cli.main", "translate", "--model", model]
    command = f"{shlex.join([*words, '--target-lang', 'de'])} {closed}"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr.startswith(f"error: {message}")
    assert found.stderr.count("\n") == 1


def test_ctrl_c_and_a_full_disk_are_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, outcome in (
        (KeyboardInterrupt(), (130, "", "interrupted.\n")),
        (OSError(28, "No space left on device"), (1, "", "error: No space left on device.\n")),
    ):
        monkeypatch.setattr(Translator, "translate", _raiser(error))
        assert run("--target-lang", "de") == outcome


def _raiser(error: BaseException) -> Callable[..., None]:
    def raise_error(*_: object, **__: object) -> None:
        raise error

    return raise_error


def test_a_reader_that_leaves_early_is_no_error(model: str) -> None:
    """In a process of its own: also shows that nothing but translations reaches standard output."""
    code = "import sys; from mtmoe.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "translate", "--model", model, "--target-lang", "de"]
    process = subprocess.Popen(
        [*command, "--beam", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdin.write(b"Save\n")
    process.stdin.flush()
    first = process.stdout.readline().decode()  # before the end of the input
    assert first == expected(model, ["Save"], "en", "de", beam=1)
    process.stdout.close()
    process.stdin.write(b"Save\n")
    process.stdin.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr.read() == b""
    process.stderr.close()
