"""Damaged and hostile files: refused by name, nothing executed, no output left behind."""

from __future__ import annotations

import os
import pickle

import pytest
import torch

from mtmoe.cli.main import main
from tests.inference.tiny_model import write_tiny_checkpoint

COMMANDS = {
    "prune": ["--keep", "2", "--criterion", "random"],
    "aggregate": [],
    "upcycle": ["--experts", "4"],
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


def without_weights(path):
    torch.save({"cfg": {}, "model": {}}, path)


HARMS = {
    cut_off: "is cut off or damaged",
    with_code: "could run code and are never read",
    with_bare_code: "is no checkpoint",
    without_a_tensor: "weight decoder.1.cross_norm.bias of {path} must have the shape (16,)",
    with_a_wrong_shape: "weight decoder.1.cross_norm.bias of {path} must have the shape (16,), but",
    without_weights: "lacks 'model'",
}


@pytest.mark.parametrize("harm", list(HARMS))
@pytest.mark.parametrize("command", list(COMMANDS))
def test_such_a_file_is_refused_and_nothing_is_left(tmp_path, capsys, command, harm):
    path = write_tiny_checkpoint(tmp_path, moe_every=0 if command == "upcycle" else 2)
    (tmp_path / "good").mkdir()
    good = write_tiny_checkpoint(tmp_path / "good") if command == "aggregate" else None
    harm(path)
    inputs = [str(good), str(path)] if good else [str(path)]
    before = sorted(tmp_path.iterdir())
    words = [command, *inputs, "--output", str(tmp_path / "out.pt"), *COMMANDS[command]]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert HARMS[harm].format(path=path) in error
    assert str(path) in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
    assert not (tmp_path / "executed").exists()
