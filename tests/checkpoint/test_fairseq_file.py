"""Checkpoints are read safely, and refused in one sentence."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import pickle

import pytest
import torch

from mtmoe.checkpoint.fairseq_file import check_readable, load_checkpoint, write_checkpoint
from mtmoe.errors import CheckpointError
from tests.inference.tiny_model import tiny_state, write_tiny_checkpoint

LANGUAGES, DIRECTIONS = ("de", "en"), ("de-en", "en-de")


def test_what_is_written_is_read(tmp_path):
    state = tiny_state(LANGUAGES, DIRECTIONS)
    write_checkpoint(tmp_path / "a.pt", state)
    checkpoint = load_checkpoint(tmp_path / "a.pt")
    assert checkpoint.directions == DIRECTIONS
    for name, tensor in checkpoint.build_model().state_dict().items():
        assert torch.equal(tensor, state["model"][f"transformer.{name}"])


def test_settings_of_the_command_line_are_read(tmp_path):
    """fairseq keeps a Namespace there, where Hydra keeps a dict."""
    state = tiny_state(LANGUAGES, DIRECTIONS)
    state["cfg"]["model"] = argparse.Namespace(**state["cfg"]["model"])
    write_checkpoint(tmp_path / "a.pt", state)
    assert load_checkpoint(tmp_path / "a.pt").config.embed_dim == 16


def test_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path, monkeypatch):
    class FullDisk(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    @contextlib.contextmanager
    def open_full(path, mode):
        yield FullDisk()

    monkeypatch.setattr("mtmoe.checkpoint.fairseq_file.open_atomic", open_full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path / "a.pt", tiny_state(LANGUAGES, DIRECTIONS))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"must be a file, but is not there: .*none\.pt"):
        load_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = write_tiny_checkpoint(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    for read in (load_checkpoint, check_readable):
        with pytest.raises(CheckpointError, match=r"is (empty|cut off or damaged)\. Give another"):
            read(path)


def test_text_is_no_checkpoint(tmp_path):
    (tmp_path / "a.pt").write_text("hello\n" * 100)
    for read in (load_checkpoint, check_readable):
        with pytest.raises(CheckpointError, match=r"a\.pt is no checkpoint\. Give another file"):
            read(tmp_path / "a.pt")


def test_a_folder_is_not_called_missing(tmp_path):
    with pytest.raises(CheckpointError, match="must be a file, but is a folder: "):
        load_checkpoint(tmp_path)


def test_a_whole_file_of_any_format_is_readable(tmp_path):
    check_readable(write_tiny_checkpoint(tmp_path))
    torch.save({}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    check_readable(tmp_path / "old.pt")


class Harmful:
    def __reduce__(self):
        return print, ("code of a checkpoint ran",)


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys):
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Harmful()))
    torch.save({"model": Harmful()}, tmp_path / "zip.pt")
    for name, what in (("pickle.pt", "is no checkpoint"), ("zip.pt", "holds Python objects")):
        for read in (load_checkpoint, check_readable):
            with pytest.raises(CheckpointError, match=what):
                read(tmp_path / name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("task_state"), "lacks 'task_state'"),
        (lambda s: s["cfg"]["model"].update(_name="transformer"), "must hold a moe_transformer"),
        (
            lambda s: s["cfg"]["model"].update(embed_dim=32),
            r"key.bias of .* must have the shape \(32,\)",
        ),
        (
            lambda s: s["cfg"]["model"].update(num_experts=2),
            r"b_in of .* must have the shape \(2, ",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, change, message):
    state = tiny_state(LANGUAGES, DIRECTIONS)
    change(state)
    write_checkpoint(tmp_path / "a.pt", state)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "a.pt")


def test_a_tensor_is_no_checkpoint(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="must hold fairseq's dict"):
        load_checkpoint(tmp_path / "a.pt")
