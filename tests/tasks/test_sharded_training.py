"""fairseq-train with sharded checkpoints: the same training, and fairseq's own way with files."""

from __future__ import annotations

import os

import pytest
import torch
from fairseq import checkpoint_utils

from mtmoe.checkpoint.fairseq_file import BOOKKEEPING, check_readable, load_checkpoint, shards_name
from mtmoe.checkpoint.start import repair_last
from mtmoe.errors import CheckpointError
from mtmoe.inference.engine import Translator
from mtmoe.tasks.programs import complete_arguments
from tests.fairseq_run import train

SHARDED = ["--checkpoint-format", "sharded"]


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, weight in expected.items():
        assert torch.equal(torch.as_tensor(found[name]), torch.as_tensor(weight)), name


def shards_of(folder):
    return {path.name for path in (folder / "shards").iterdir()}


@pytest.fixture(scope="module")
def whole(toy_data, tmp_path_factory):
    """Six updates without a stop, gathered."""
    folder = tmp_path_factory.mktemp("whole")
    train(toy_data, folder, "--max-update", "6")
    return load_checkpoint(folder / "checkpoint_last.pt")


@pytest.fixture(scope="module")
def resumed(toy_data, tmp_path_factory):
    """Three updates, and three more, sharded."""
    folder = tmp_path_factory.mktemp("sharded")
    for updates in ("3", "6"):
        train(toy_data, folder, "--max-update", updates, *SHARDED)
    return folder


def test_a_resumed_training_is_bit_equal_to_a_gathered_one(whole, resumed):
    found = load_checkpoint(resumed / "checkpoint_last.pt")
    assert_equal(found.state["model"], whole.state["model"])
    states = [c.state["last_optimizer_state"] for c in (found, whole)]
    assert states[0].keys() == states[1].keys()
    assert states[0]["param_groups"] == states[1]["param_groups"]
    assert len(states[0]["state"]) == len(states[1]["state"])
    for number, values in states[1]["state"].items():
        assert_equal({key: states[0]["state"][number][key] for key in values}, values)
    iterators = [c.state["extra_state"]["train_iterator"] for c in (found, whole)]
    assert iterators[0] == iterators[1]


def test_all_names_share_one_folder_and_it_translates_alone(resumed):
    names = {shards_name(check_readable(path)) for path in resumed.glob("*.pt")}
    assert shards_of(resumed) == names
    last = check_readable(resumed / "checkpoint_last.pt")
    folder = resumed / "shards" / shards_name(last)
    alone = folder.rename(resumed.parent / f"{resumed.name}-moved")
    try:
        assert (alone / BOOKKEEPING).is_file()
        for path in (alone, alone / BOOKKEEPING):
            assert Translator.from_checkpoint(path).translate(["abc"], "aa", "bb")
        with pytest.raises(CheckpointError, match="must be a whole folder of a checkpoint"):
            Translator.from_checkpoint(resumed / "checkpoint_last.pt")
    finally:
        alone.rename(folder)


def test_folders_go_when_fairseq_deletes_their_last_file(toy_data, tmp_path, monkeypatch):
    monkeypatch.delattr(checkpoint_utils.save_checkpoint, "best", raising=False)  # of other tests
    leftover = tmp_path / "shards" / ".00000001-abc.part"
    leftover.mkdir(parents=True)
    options = ["--save-interval-updates", "2", "--keep-interval-updates", "1", "--max-update", "7"]
    train(toy_data, tmp_path, *options, *SHARDED)
    kept = {path.name for path in tmp_path.glob("*.pt")}
    assert "checkpoint_1_6.pt" in kept
    assert "checkpoint_1_4.pt" not in kept
    assert {"checkpoint_best.pt", "checkpoint_last.pt"} <= kept
    assert shards_of(tmp_path) == {shards_name(check_readable(tmp_path / name)) for name in kept}


def test_a_cut_off_last_checkpoint_is_replaced_by_the_newest_whole_one(toy_data, tmp_path, caplog):
    options = ["--save-interval-updates", "2", "--disable-validation"]
    train(toy_data, tmp_path, *options, *SHARDED, "--max-update", "4")
    os.truncate(tmp_path / "checkpoint_last.pt", 500)
    repair_last(str(tmp_path))
    assert "Going on from checkpoint_1_4.pt, update 4." in caplog.text
    state = check_readable(tmp_path / "checkpoint_last.pt")
    assert state["optimizer_history"][-1]["num_updates"] == 4
    (tmp_path / "shards").rename(tmp_path / "gone")  # no whole one is left
    repair_last(str(tmp_path))
    with pytest.raises(CheckpointError, match=r"lacks \.metadata"):
        load_checkpoint(tmp_path / "checkpoint_last.pt")


def test_settings_that_fairseq_would_save_alone_are_refused(toy_data, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(toy_data, tmp_path, "--no-save-optimizer-state", *SHARDED)
    expected = "no_save_optimizer_state must be off where checkpoint_format is sharded, but is on"
    assert expected in capsys.readouterr().err


def test_programs_of_fairseq_ask_for_a_gathered_one(resumed):
    with pytest.raises(
        CheckpointError, match=r"must name a gathered checkpoint, but .* is sharded"
    ):
        complete_arguments(["data", "--path", str(resumed / "checkpoint_last.pt")])


def test_an_optimizer_that_knows_no_shards_is_refused(toy_data, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        train(toy_data, tmp_path, "--max-update", "1", "--optimizer", "adam", *SHARDED)
    assert stop.value.code == 2
    message = "optimizer must be fused_adam where checkpoint_format is sharded, but is adam"
    assert message in capsys.readouterr().err
