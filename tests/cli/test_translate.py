from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mtmoe.cli.main import main
from mtmoe.inference.engine import Translator
from mtmoe.inference.requests import Request
from mtmoe.inference.search_config import SearchConfig
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
    found = Translator.from_checkpoint(model).translate(lines, source, target, **options)
    return "".join(f"{line}\n" for line in found)


def test_line_in_line_out_and_nothing_else(run: Run, model: str) -> None:
    lines = TEXT.split("\n")[:3]
    assert run("--target-lang", "de") == (0, expected(model, lines, "en", "de"), "")
    assert run("--target-lang", "de")[1].split("\n")[1] == ""


def test_options_reach_the_search(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[tuple[int, ...]] = []
    load = Translator.from_checkpoint
    monkeypatch.setattr(Translator, "from_checkpoint", lambda *a: threads.append(a[2:]) or load(*a))
    options = ("--beam", "3", "--length-penalty", "0.5", "--max-tokens", "30", "--threads", "1")
    found = run("--source-lang", "fr", "--target-lang", "en", *options)
    wanted = expected(model, ["Save", "", LAST], "fr", "en", beam=3, length_penalty=0.5)
    assert found == (0, wanted, "")
    assert threads[0] == ("float32", 1, None)


def test_an_input_without_lines_gives_none(run: Run) -> None:
    assert run("--target-lang", "de", text=b"") == (0, "", "")


def test_files_are_read_and_written_whole(run: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(TEXT.encode())
    options = ("--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"))
    assert run("--target-lang", "fr", *options) == (0, "", "")
    lines = TEXT.split("\n")[:3]
    assert (tmp_path / "out").read_text() == expected(model, lines, "en", "fr")
    (tmp_path / "in").write_bytes(b'{"text": "Save"}\n{\n')
    code, out, error = run("--target-lang", "de", "--json-input", *options)
    assert (code, out, f"{tmp_path}/in line 2 " in error) == (2, "", True)
    assert (tmp_path / "out").read_text() == expected(model, lines, "en", "fr")  # as before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "a line must be a JSON object, but standard input line 2 is none"),
        ("[1]", 'with the key "text", but standard input line 2 is not'),
        ('{"text": 1}', "text must be a string, but in standard input line 2 is a int"),
        ('{"text": "a", "target_lang": "xx"}', "standard input line 2: target language must be"),
    ],
)
def test_lines_ahead_of_a_bad_one_are_translated(
    run: Run, model: str, bad: str, message: str
) -> None:
    text = f'{{"text": "Save"}}\n{bad}\n{{"text": "Open"}}\n'.encode()
    code, out, error = run("--target-lang", "de", "--json-input", text=text)
    wanted = expected(model, ["Save"], "en", "de")
    assert (code, f"{json.loads(out)['translation']}\n") == (2, wanted)
    assert message in error


def test_json_keeps_other_keys_and_may_name_languages_and_a_prefix(run: Run, model: str) -> None:
    lines = [
        {"id": 7, "text": "Save\n\tOpen"},
        {"text": "Save", "target_lang": "fr", "note": "ü"},
        {"text": "Datei", "source_lang": "de", "target_lang": "en", "prefix": "Save"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    code, out, _ = run("--target-lang", "de", "--json-input", "--n-best", "2", text=text)
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [{k: row[k] for k in line} for row, line in zip(found, lines, strict=True)] == lines
    save, open_ = expected(model, ["Save", "Open"], "en", "de").split("\n")[:2]
    assert found[0]["translation"] == f"{save}\n\t{open_}"
    assert f"{found[1]['translation']}\n" == expected(model, ["Save"], "en", "fr")
    assert found[2]["translation"].startswith("Save")
    assert found[1]["n_best"][0]["score"] == found[1]["score"] >= found[1]["n_best"][1]["score"]
    assert found[1]["words"][-1][0] == "</s>"


def test_hostile_lines_stay_lines_in_their_order(run: Run, model: str) -> None:
    lines = ["  Save ", "\tSave\t\tOpen", "", " " * 1000, "M\0\u2028x", "مرحبا",
             "👍🏽e\u0301", "o" * 300]  # fmt: skip
    text = "\r\n".join(lines).encode() + b"\n\xff\xfe\n" + b"Save\n"
    code, out, _ = run("--target-lang", "de", "--beam", "1", text=text)
    found = out.split("\n")[:-1]
    save, open_ = expected(model, ["Save", "Open"], "en", "de", beam=1).split("\n")[:2]
    assert (code, len(found)) == (0, len(lines) + 2)
    assert found[:4] == [f"  {save} ", f"\t{save}\t\t{open_}", "", " " * 1000]
    assert found[-1] == save
    assert all("\u2028" not in line and "\0" not in line for line in found)


def test_long_lines_are_split_cut_or_refused_and_named(
    run: Run, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    long = f"Save\n{'Delete the selected files? ' * 9}\n".encode()
    whole = run("--target-lang", "de", text=long)[1]
    assert "standard input line 2 is long: " in caplog.text
    assert "translated in " in caplog.text
    cut = run("--target-lang", "de", "--long", "truncate", text=long)[1]
    assert "cut after " in caplog.text
    assert cut != whole
    code, _, error = run("--target-lang", "de", "--long", "error", text=long)
    assert code == 2
    assert "but standard input line 2 has " in error


def test_scores_and_n_best_lists_are_columns(run: Run, model: str, tmp_path: Path) -> None:
    plain = run("--target-lang", "de")[1].split("\n")[:-1]
    rows = [line.split("\t") for line in run("--target-lang", "de", "--scores")[1].splitlines()]
    assert [text for _, text in rows] == plain
    best = run("--target-lang", "de", "--n-best", "3")[1].splitlines()
    assert [line.split("\t")[0] for line in best] == ["1"] * 3 + ["2"] + ["3"] * 3
    assert best[0].split("\t")[1:] == rows[0]
    (tmp_path / "s").write_text(TEXT)
    (tmp_path / "t").write_text("".join(f"{line}\n" for line in plain))
    files = ["--source", str(tmp_path / "s"), "--target", str(tmp_path / "t")]
    code = main(
        ["score", "--model", model, "--target-lang", "de", "--output", str(tmp_path / "o"), *files]
    )
    assert code == 0
    scores = (tmp_path / "o").read_text().split()
    requests = [Request(line, "en", "de") for line in TEXT.split("\n")[:3]]
    wanted = Translator.from_checkpoint(model).score(requests, plain, SearchConfig())
    assert [float(s) for s in scores] == pytest.approx([t.score for t in wanted], abs=2e-6)
    assert float(scores[0]) < 0 == float(scores[1])
    (tmp_path / "t").write_text("a\n")
    assert main(["score", "--model", model, "--target-lang", "de", *files]) == 2


def test_languages_lists_directions(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["languages", model]) == 0
    out, error = capsys.readouterr()
    assert out == "de-en\nen-de\nen-fr\nfr-en\n"
    assert error == "3 languages: de, en, fr\n"


def test_sampling_reaches_the_search(run: Run) -> None:
    options = ("--target-lang", "de", "--sampling", "--temperature", "3")
    assert run(*options, "--seed", "5") == run(*options, "--seed", "5")
    assert run(*options, "--seed", "5") != run(*options, "--seed", "6")
    assert run("--target-lang", "de", "--seed", "5")[0] == 2


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
        monkeypatch.setattr(Translator, "translate_requests", _raiser(error))
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
