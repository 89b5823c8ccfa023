from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mtmoe.cli.main import main
from mtmoe.inference.engine import Translator
from mtmoe.inference.requests import Request
from mtmoe.inference.search_config import SearchConfig
from tests.cli.conftest import LAST, TEXT, Run


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
    assert threads[0] == ("float32", 1, None, None, None)


def test_an_input_without_lines_gives_none(run: Run) -> None:
    assert run("--target-lang", "de", text=b"") == (0, "", "")


def test_files_are_read_in_turn_and_the_output_is_written_whole(
    run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"Save\n\n")
    (tmp_path / "b").write_bytes(LAST.encode())
    files = (str(tmp_path / "a"), "--output", str(tmp_path / "out"), "--input", str(tmp_path / "b"))
    assert run("--target-lang", "fr", *files) == (0, "", "")
    wanted = expected(model, ["Save", "", LAST], "en", "fr")
    assert (tmp_path / "out").read_text() == wanted
    monkeypatch.setattr(Translator, "translate_requests", _raiser(OSError(5, "Input/output error")))
    assert run("--target-lang", "de", *files)[0] == 1
    assert (tmp_path / "out").read_text() == wanted  # as before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "out"]


@pytest.mark.parametrize("read", ["text", "model"])
def test_an_output_may_not_replace_text_or_model(
    run: Run, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], read: str
) -> None:
    names = {"text": str(tmp_path / "text"), "model": str(tmp_path / "model.pt")}
    Path(names["text"]).write_text("Save\n")
    Path(names["model"]).write_bytes(Path(model).read_bytes())
    before = {name: Path(name).read_bytes() for name in names.values()}
    options = ["--target-lang", "de", "--output", names[read]]
    code, _, error = run(*options, names["text"], model=names["model"])
    assert (code, error.count("\n")) == (2, 1)
    assert f"--output must be another file than what is read, but is {names[read]}" in error
    files = ["--source", names["text"], "--target", names["text"]]
    assert main(["score", "--model", names["model"], *options, *files]) == 2
    assert "--output must be another file than" in capsys.readouterr().err
    assert {name: Path(name).read_bytes() for name in names.values()} == before
    assert len(list(tmp_path.iterdir())) == len(names)


def test_an_output_called_minus_is_standard_output(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("Save\n")
    wanted = run("--target-lang", "de", "text")
    assert wanted[0] == 0
    assert run("--target-lang", "de", "--output", "-", "text") == wanted
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_an_output_may_not_replace_standard_input(model: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("Save\n")
    words = [sys.executable, "-m", "mtmoe.cli.main", "translate", "--model", model]
    words += ["--target-lang", "de", "--output", str(tmp_path / "text")]
    with open(tmp_path / "text") as text:
        found = subprocess.run(words, stdin=text, capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr.startswith("error: --output must be another file than what is read")
    assert (tmp_path / "text").read_text() == "Save\n"


def test_standard_input_is_a_file_called_minus(run: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("Open")
    wanted = expected(model, ["Open", "Save", "", LAST, "Open"], "en", "de")
    file = str(tmp_path / "a")
    assert run("--target-lang", "de", file, "-", file) == (0, wanted, "")


def test_a_device_as_output_is_written_as_it_comes(run: Run) -> None:
    assert run("--target-lang", "de", "--output", "/dev/null") == (0, "", "")
    code, _, error = run("--target-lang", "de", "--output", "/dev/full")
    assert (code, error) == (1, "error: No space left on device.\n")
    code, _, error = run("--target-lang", "de", "--output", "/dev/null", "--resume")
    assert code == 2
    assert "--resume must come with a file as --output, but that is /dev/null." in error


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "a line must be a JSON object, but standard input line 2 is none"),
        ("[1]", 'with the key "text", but standard input line 2 is not'),
        ('{"text": 1}', "text must be a string, but in standard input line 2 is 1."),
        ('{"text": "a", "target_lang": "xx"}', "standard input line 2: target language must be"),
        ('{"text": "a", "target_lang": "en"}', "standard input line 2: source language must be"),
    ],
)
def test_a_bad_line_keeps_its_place_and_is_told(
    run: Run, model: str, bad: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = f'{{"text": "Save"}}\n{bad}\n\n{{"text": "Open", "target_lang": "de"}}\n'.encode()
    code, out, error = run("--target-lang", "fr", "--json-input", text=text)
    first, second, third, fourth = out.split("\n")[:-1]
    assert f"{json.loads(first)['translation']}\n" == expected(model, ["Save"], "en", "fr")
    assert message in json.loads(second)["error"]
    assert third == ""
    assert f"{json.loads(fourth)['translation']}\n" == expected(model, ["Open"], "en", "de")
    assert message in caplog.text
    assert (code, error.count("\n")) == (2, 1)
    assert "must be translatable, but 1 of 4 are not. Their places are kept" in error


def test_tables_name_languages_by_line(run: Run, model: str) -> None:
    text = b"1\tSave\tde\n2\tOpen\tfr\r\n\n3\tOpen\txx\n4\n"
    code, out, _ = run("--tsv", "text=2,target_lang=3", "--source-lang", "en", text=text)
    save = expected(model, ["Save"], "en", "de")[:-1]
    open_ = expected(model, ["Open"], "en", "fr")[:-1]
    wanted = f"1\tSave\tde\t{save}\n2\tOpen\tfr\t{open_}\n\n3\tOpen\txx\t\n4\t\n"
    assert (code, out) == (2, wanted)


def test_a_line_must_name_a_target_if_the_run_does_not(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    code, out, _ = run("--json-input", text=b'{"text": "Save", "target_lang": "de"}\n{"text": ""}')
    assert (code, out.count("\n")) == (2, 2)
    assert "standard input line 2: target language must be named, but is not." in caplog.text


def test_each_target_has_its_own_source(run: Run, model: str) -> None:
    text = b'{"text": "Datei", "target_lang": "en", "source_lang": "de"}\n{"text": "Save"}\n'
    code, out, _ = run("--target-lang", "fr", "--json-input", text=text)
    first, second = (json.loads(line)["translation"] + "\n" for line in out.splitlines())
    assert (code, first) == (0, expected(model, ["Datei"], "de", "en"))
    assert second == expected(model, ["Save"], "en", "fr")


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
    caplog.clear()
    code, refused, _ = run("--target-lang", "de", "--long", "error", text=long)
    assert (code, refused) == (2, whole.split("\n")[0] + "\n\n")
    assert "but standard input line 2 has " in caplog.text


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


def test_scores_of_words_are_json(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "st":
        (tmp_path / name).write_text("Save the file.\n\n")
    files = ["--source", str(tmp_path / "s"), "--target", str(tmp_path / "t")]
    assert main(["score", "--model", model, "--target-lang", "de", "--json", *files]) == 0
    first, empty = map(json.loads, capsys.readouterr().out.splitlines())
    assert [word for word, _ in first["words"]] == ["Save", "the", "file.", "</s>"]
    assert (empty["target"], empty["score"], empty["words"]) == ("", 0.0, [])


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
        (["--beam", "0"], "error: --beam must be between 1 and 200, but is 0."),
        (["--n-best", "5"], "--n-best must be between 1 and the beam (4), but is 5."),
        (["--min-length", "9", "--max-length", "3"], "--max-length must be 0, or at least --min-"),
        (["--max-tokens", "-1"], "--max-tokens must be at least 1, but is -1."),
        (["--length-penalty", "nan"], "--length-penalty must be between 0 and 10, but is nan."),
        (["--threads", "0"], "--threads must be at least 1, but is 0."),
        (["--beam", "x"], "argument --beam: invalid int value: 'x'"),
        (["--bean", "1"], "unrecognized arguments: --bean. See"),
        (["--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
        (["--target-lang", "xx"], "target language must be one of de, en, fr, but is 'xx'."),
        (["--source-lang", "xx"], "source language must be one of de, en, fr, but is 'xx'."),
        (["--source-lang", "de"], "must differ from the source language, but both are 'de'."),
        (["--target-lang", "en"], "source language must be named to translate into 'en'"),
        (["--input", "/none/text"], "input must be a file, but is not there: /none/text."),
        (["--input", "/"], "input must be a file, but is a folder: /."),
        (
            ["--output", "/none/out"],
            "--output must lie in a folder that is there, but is /none/out.",
        ),
        (["/none/text"], "input must be a file, but is not there: /none/text."),
        (["--tsv", "x"], "--tsv must be a column, as 2, or columns by name"),
        (["--tsv", "1", "--json"], "--tsv must be left out with JSON, but is given."),
        (["--resume"], "--resume must come with a file as --output, but that is not given."),
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
        ("<&-", "standard input must be open, but is closed. Name a FILE to read."),
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
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()
