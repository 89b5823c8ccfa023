"""fairseq's programs as a user calls them: translations, and mistakes in one sentence."""

from __future__ import annotations

import functools
import gc
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from fairseq.data.indexed_dataset import MMapIndexedDataset

from mtmoe.errors import CheckpointError
from mtmoe.inference.engine import Translator
from mtmoe.tasks.programs import complete_arguments, help_arguments, overlook_half_open
from tests.fairseq_run import SETTINGS, train
from tests.toy_data import toy_sentences

ROOT = Path(__file__).parents[2]
LINES = [line[0] for line in toy_sentences()[:4]]
LINES += [line.upper() for line in LINES]
LIMITS = ["--max-len-a", "2", "--max-len-b", "20"]  # of the command


def start(program, data, *options, **kwargs):
    path = Path(sys.executable).with_name(program)
    command = [str(path), str(data), "--user-dir", str(ROOT / "mtmoe"), *map(str, options)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **{**pipes, **kwargs})


def call(program, data, *options, text=""):
    process = start(program, data, *options)
    out, error = process.communicate(text, timeout=120)
    return process.returncode, out, error


def check_one_sentence(found, code, message):
    assert found[0] == code, found
    assert "Traceback" not in found[1] + found[2]
    last = found[2].strip().split("\n")[-1]
    assert last.startswith("error: ")
    assert message in last


@pytest.fixture(scope="module")
def trained(toy_data, tmp_path_factory):
    """A checkpoint of a short training, by the kind of tags in front of the source."""

    @functools.cache
    def make(tags):
        folder = tmp_path_factory.mktemp(tags)
        options = ["--max-update", "60", "--directions", "aa-bb,bb-aa"]
        train(toy_data, folder, *options, "--encoder-tags", tags)
        return folder / "checkpoint_last.pt"

    return make


def numbered(output, letter="D", column=2):
    rows = [line.split("\t") for line in output.splitlines() if line.startswith(f"{letter}-")]
    return [row[column] for row in sorted(rows, key=lambda row: int(row[0][2:]))]


def write_lines(folder):
    (folder / "text").write_text("".join(f"{line}\n" for line in LINES))
    return folder / "text"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "direction", "tags"),
    [("file", "aa-bb", "both"), ("stdin", "bb-aa", "source"), ("bpe", "bb-aa", "both")],
)
def test_interactive_translates_plain_text_as_the_command_does(
    toy_data, trained, tmp_path, way, direction, tags
):
    model = trained(tags)
    source, target = direction.split("-")
    options = ["--path", model, "-s", source, "-t", target, "--remove-bpe", "sentencepiece"]
    options += LIMITS
    text = write_lines(tmp_path)
    if way == "file":
        options += ["--input", text]
    if way == "bpe":
        model_file = toy_data / "sentencepiece.model"
        options += ["--bpe", "sentencepiece", "--sentencepiece-model", model_file]
    code, out, error = call("fairseq-interactive", toy_data, *options, text=text.read_text())
    assert code == 0, error
    translator = Translator.from_checkpoint(model)
    expected = translator.translate(LINES, source, target, beam=5)
    assert numbered(out) == numbered(out, "H") == expected
    assert any(" " in line for line in expected)
    assert expected != translator.translate(LINES, target, source, beam=5)


@pytest.mark.slow
@pytest.mark.parametrize("tags", ["both", "source"])
def test_generate_reads_the_kind_of_tags_from_the_checkpoint(toy_data, trained, tags):
    options = ["--path", trained(tags), "-s", "aa", "-t", "bb", "--remove-bpe", "sentencepiece"]
    code, out, error = call("fairseq-generate", toy_data, *options, *LIMITS)
    assert code == 0, error
    sources = [line.removeprefix("__aa__").removeprefix("__bb__") for line in numbered(out, "S", 1)]
    expected = Translator.from_checkpoint(trained(tags)).translate(sources, "aa", "bb", beam=5)
    equal = sum(map(str.__eq__, numbered(out), expected))
    assert equal >= 0.9 * len(expected), (numbered(out), expected)


class Code:
    def __reduce__(self):
        return print, ("code of a checkpoint ran",)


@pytest.fixture
def broken(trained, tmp_path):
    """Files that are no checkpoints, by what is told of them."""
    whole = trained("both").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Code()))
    torch.save({"model": Code()}, tmp_path / "code.pt")
    return {
        "none.pt": "is not there", "cut.pt": "is cut off or damaged", "pickle.pt": "no checkpoint",
        "code.pt": "holds Python objects other than weights",
    }  # fmt: skip


def test_checkpoints_are_checked_before_fairseq_opens_them(broken, trained, tmp_path):
    for name, message in broken.items():
        with pytest.raises(CheckpointError, match=message):
            complete_arguments(["--path", str(tmp_path / name)])
        ensemble = f"{trained('both')}{os.pathsep}{tmp_path}/{name}"
        with pytest.raises(CheckpointError, match=message):
            complete_arguments([f"--path={ensemble}", "--task", "multitask_translation"])
        assert complete_arguments(["--path", name, "--task", "translation"]) == []
    with pytest.raises(CheckpointError, match="--path must name a checkpoint, but is not given"):
        complete_arguments(["-s", "aa"])
    assert complete_arguments(["--help"]) == ["--task=multitask_translation"]
    added = complete_arguments([f"--path={trained('both')}"])
    assert added == ["--task=multitask_translation"]


@pytest.mark.slow
@pytest.mark.parametrize("program", ["generate", "interactive", "validate"])
def test_a_damaged_checkpoint_ends_a_program_with_one_sentence(toy_data, broken, tmp_path, program):
    for name in ("cut.pt", "none.pt"):
        options = ["--path", tmp_path / name, "-s", "aa", "-t", "bb", "--max-tokens", "1000"]
        found = call(f"fairseq-{program}", toy_data, *options)
        check_one_sentence(found, 2, broken[name])


@pytest.mark.parametrize("option", ["--restore-file", "--finetune-from-model"])
def test_training_refuses_a_start_that_cannot_be_read(toy_data, broken, tmp_path, capsys, option):
    for name, message in broken.items():
        with pytest.raises(SystemExit) as stop:
            train(toy_data, tmp_path / "new", "--max-update", "1", option, str(tmp_path / name))
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_training_refuses_to_resume_what_is_damaged_or_of_another_shape(
    toy_data, trained, tmp_path, capsys
):
    folder = tmp_path
    last = Path(shutil.copy(trained("both"), folder))
    with pytest.raises(SystemExit):
        train(toy_data, folder, "--max-update", "70", "--num-experts", "8")
    error = capsys.readouterr().err
    assert f"the model must be that of {last}, but its weight transformer." in error
    assert "Give the settings that it was trained with, or another --save-dir." in error
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(SystemExit):
        train(toy_data, folder, "--max-update", "70")
    assert f"{last} is cut off or damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_a_save_dir_that_cannot_be_written_is_one_sentence(toy_data, tmp_path):
    (tmp_path / "file").touch()
    options = [*SETTINGS, "--max-update", "1", "--save-dir", tmp_path / "file" / "run"]
    check_one_sentence(call("fairseq-train", toy_data, *options), 1, f"({tmp_path}/file/run)")


@pytest.mark.slow
@pytest.mark.parametrize(
    "sign", ["moe_cross_entropy", '"num_updates"']
)  # while it starts; in training
def test_ctrl_c_is_one_line(toy_data, tmp_path, sign):
    options = [*SETTINGS, "--max-update", "100000", "--save-dir", tmp_path / "run"]
    with open(tmp_path / "log", "w") as log:
        process = start("fairseq-train", toy_data, *options, stdout=log)
        while sign not in (tmp_path / "log").read_text():
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGINT  # 130 in a shell
    assert "Traceback" not in error
    assert error.strip().split("\n")[-1] == "interrupted."


def test_a_dataset_that_ctrl_c_met_half_open_prints_nothing(capsys, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", overlook_half_open)
    half_open = MMapIndexedDataset.__new__(MMapIndexedDataset)
    del half_open
    gc.collect()
    assert capsys.readouterr().err == ""


def test_other_finalisers_that_fail_are_reported(capsys, monkeypatch):
    class Broken:
        def __del__(self):
            raise AttributeError("broken")

    monkeypatch.setattr(sys, "unraisablehook", overlook_half_open)
    Broken()
    gc.collect()
    assert "AttributeError: broken" in capsys.readouterr().err


def test_help_waits_for_all_options():
    words = ["data", "--task", "multitask_translation", "-h"]
    assert help_arguments(words) == [*words[:-1], "--full-help"]
    assert help_arguments(["data", "--help"]) == ["data", "--help"]  # of fairseq's own task


@pytest.mark.slow
def test_help_shows_the_options_of_task_model_criterion_and_optimizer(toy_data):
    code, out, error = call("fairseq-train", toy_data, *SETTINGS[:4], *SETTINGS[12:18], "--help")
    assert code == 0, error
    for option in ("--directions", "--top-k", "--autocast", "--tile-size"):
        assert f"\n  {option} " in out
    assert "--full-help" not in out


@pytest.mark.slow
def test_gradients_that_are_not_finite_end_a_training_in_one_sentence(toy_data, tmp_path):
    options = [*SETTINGS, "--cpu", "--lr", "1e30", "--max-update", "9", "--save-dir", tmp_path]
    found = call("fairseq-train", toy_data, *options)
    check_one_sentence(found, 1, "gradients must be finite, but are not")
