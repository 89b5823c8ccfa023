"""Damaged and hostile files: refused by name, nothing executed, no output left behind."""

from __future__ import annotations

import os
import pickle

import pytest
import torch

from data_prep import encode
from mtmoe.cli.main import main
from mtmoe.errors import run_command
from tests.inference.tiny_model import write_tiny_checkpoint

OUT = "--output {out}"
COMMANDS = {  # every command that reads a checkpoint of ours
    "prune": f"prune {{path}} --keep 2 --criterion random {OUT}",
    "aggregate": f"aggregate {{good}} {{path}} {OUT}",
    "upcycle": f"upcycle {{path}} --experts 4 {OUT}",
    "expert-stats": f"expert-stats {{path}} --text {{text}}/valid.de-en.en {OUT}",
    "usage": f"usage --model {{path}} --text {{text}} {OUT}",
    "convert to huggingface": f"convert {{path}} --to huggingface {OUT}",
    "convert to ctranslate2": f"convert {{path}} --to ctranslate2 {OUT}",
    "translate": "translate --model {path} --target-lang de "
    f"--input {{text}}/valid.de-en.en {OUT}",
    "score": "score --model {path} --target-lang de --source {text}/valid.de-en.en "
    f"--target {{text}}/valid.de-en.de {OUT}",
    "languages": "languages {path}",
}


class Code:
    """Runs a command when it is unpickled by a careless reader."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-2000])


def with_code(path):
    torch.save({"model": {}, "cfg": Code(path.with_name("executed"))}, path)


def with_bare_code(path):
    path.write_bytes(pickle.dumps(Code(path.with_name("executed"))))


def without_a_tensor(path):
    state = torch.load(path, weights_only=True)
    del state["model"]["transformer.decoder.1.cross_norm.bias"]
    torch.save(state, path)


def with_a_wrong_shape(path):
    state = torch.load(path, weights_only=True)
    state["model"]["transformer.decoder.1.cross_norm.bias"] = torch.zeros(3)
    torch.save(state, path)


def with_a_weight(path, weight):
    state = torch.load(path, weights_only=True)
    state["model"]["transformer.decoder.1.cross_norm.bias"] = weight
    torch.save(state, path)


def with_a_word_for_a_tensor(path):
    with_a_weight(path, "hello")


def with_a_sparse_tensor(path):
    with_a_weight(path, torch.zeros(16).to_sparse())


def without_numbers(path):
    with_a_weight(path, torch.zeros(16, device="meta"))


def with_integers(path):
    with_a_weight(path, torch.zeros(16, dtype=torch.int64))


def without_weights(path):
    torch.save({"cfg": {}, "model": {}}, path)


HARMS = {
    cut_off: "is cut off or damaged",
    with_code: "could run code and are never read",
    with_bare_code: "is no checkpoint",
    without_a_tensor: "weight decoder.1.cross_norm.bias of {path} must have the shape (16,)",
    with_a_wrong_shape: "weight decoder.1.cross_norm.bias of {path} must have the shape (16,), but",
    with_a_word_for_a_tensor: "weight decoder.1.cross_norm.bias of {path} must be a dense tensor",
    with_a_sparse_tensor: "weight decoder.1.cross_norm.bias of {path} must be a dense tensor",
    without_numbers: "weight decoder.1.cross_norm.bias of {path} must be a dense tensor",
    with_integers: "weight decoder.1.cross_norm.bias of {path} must be a dense tensor of floating",
    without_weights: "lacks 'model'",
}


@pytest.fixture
def text(tmp_path_factory):
    """A folder of parallel text."""
    folder = tmp_path_factory.mktemp("text")
    for language, line in (("en", "Save the file."), ("de", "Die Datei speichern.")):
        (folder / f"valid.de-en.{language}").write_text(f"{line}\n")
    return folder


@pytest.mark.parametrize("harm", list(HARMS))
@pytest.mark.parametrize("command", list(COMMANDS))
def test_such_a_file_is_refused_and_nothing_is_left(tmp_path, text, capsys, command, harm):
    path = write_tiny_checkpoint(tmp_path, moe_every=0 if command == "upcycle" else 2)
    (tmp_path / "good").mkdir()
    good = write_tiny_checkpoint(tmp_path / "good")
    harm(path)
    before = sorted(tmp_path.iterdir())
    words = COMMANDS[command].format(path=path, good=good, text=text, out=tmp_path / "out")
    assert main(words.split()) == 2
    found = capsys.readouterr()
    assert HARMS[harm].format(path=path) in found.err
    assert str(path) in found.err
    assert found.err.count("\n") == 1
    assert not found.out
    assert sorted(tmp_path.iterdir()) == before
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("harm", list(HARMS))
def test_data_prep_refuses_it_too(tmp_path, text, capsys, monkeypatch, harm):
    path = write_tiny_checkpoint(tmp_path)
    harm(path)
    words = ["encode", str(path), "--text", str(text), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", words)
    assert run_command(encode.main) == 2
    assert HARMS[harm].format(path=path) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "executed").exists()
