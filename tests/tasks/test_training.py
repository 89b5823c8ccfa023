"""Stock fairseq-train with our task, model, criterion and optimizer."""

from __future__ import annotations

import shutil

import pytest
import torch

from mtmoe.checkpoint.fairseq_file import load_checkpoint
from tests.fairseq_run import train


def assert_same_state(first, second):
    for name, tensor in first["model"].items():
        assert torch.equal(tensor, second["model"][name]), name
    ours, theirs = (s["last_optimizer_state"]["state"] for s in (first, second))
    for key, moments in ours.items():
        assert torch.equal(moments["exp_avg_sq"], theirs[key]["exp_avg_sq"]), key


def test_resuming_within_an_epoch_continues_bit_exactly(toy_data, tmp_path):
    noisy = ["--capacity-factor", "1.0", "--dropout", "0.1", "--jitter", "0.1"]
    whole = train(toy_data, tmp_path / "whole", "--max-update", "12", *noisy)
    train(toy_data, tmp_path / "parts", "--max-update", "5", *noisy)
    resumed = train(toy_data, tmp_path / "parts", "--max-update", "12", *noisy)
    assert resumed["extra_state"]["train_iterator"]["epoch"] == 1, "must stay within one epoch"
    assert_same_state(whole, resumed)


def test_a_checkpoint_carries_all_that_translation_needs(toy_data, tmp_path):
    folder = shutil.copytree(toy_data, tmp_path / "data-bin")
    train(folder, tmp_path / "run", "--max-update", "2")
    shutil.rmtree(folder)
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoint_last.pt")
    assert checkpoint.directions == ("aa-bb", "aa-cc", "bb-aa", "cc-aa")
    assert checkpoint.vocabulary.languages == ("aa", "bb", "cc")
    assert checkpoint.config.router.num_experts == 4
    text = ["abc ab", "j"]
    assert checkpoint.vocabulary.decode(checkpoint.vocabulary.encode(text)) == text


@pytest.mark.parametrize(
    "extra", [["--top-k", "2", "--capacity-factor", "1.25"], ["--moe-every", "0"]]
)
def test_training_learns_the_toy_languages(toy_data, tmp_path, extra):
    state = train(
        toy_data, tmp_path / "run", "--max-update", "250", "--directions", "aa-bb", *extra
    )
    assert state["extra_state"]["val_loss"] < 2.5  # bits a token; an untrained model has 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-k", "9"], "top_k must be between 1 and num_experts (4), but is 9."),
        (["--embed-dim", "33"], "embed_dim must be a multiple of twice attention_heads (2 * 4)"),
        (["--directions", "aa-dd"], "directions must be among aa-bb, aa-cc, bb-aa, cc-aa"),
        (["--source-lang", "xx"], "source_lang must be among aa, bb, cc, but is 'xx'"),
        (["--sampling-temperature", "0.5"], "sampling_temperature must be at least 1"),
        (["--label-smoothing", "1.5"], "label_smoothing must be at least 0 and below 1"),
        (["--lr-scheduler", "linear_to_deadline"], "stop_time_hours must be above 0"),
        (["--valid-subset", "valid,dev"], "must hold the split 'dev'"),
    ],
)
def test_a_wrong_setting_ends_fairseq_with_one_sentence(
    toy_data, tmp_path, capsys, options, message
):
    with pytest.raises(SystemExit) as stop:
        train(toy_data, tmp_path / "run", "--max-update", "1", *options)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_data_bin_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, tmp_path / "run", "--max-update", "1")
    assert stop.value.code == 2
    assert "data must be a folder with dict.LANG.txt" in capsys.readouterr().err


def test_another_vocabulary_is_refused_at_resume(toy_data, tmp_path, capsys):
    train(toy_data, tmp_path / "run", "--max-update", "1")
    other = shutil.copytree(toy_data, tmp_path / "data-bin")
    for path in other.glob("dict.*.txt"):
        path.write_text(path.read_text("utf-8").replace("__bb__", "__dd__"), "utf-8")
    for path in other.glob("*bb*"):
        path.unlink()
    with pytest.raises(SystemExit):
        train(other, tmp_path / "run", "--max-update", "2", "--directions", "aa-cc")
    assert "must have the vocabulary of the data folder" in capsys.readouterr().err


def test_learning_rate_ends_at_the_deadline(toy_data, tmp_path):
    options = ["--lr-scheduler", "linear_to_deadline", "--warmup-updates", "2"]
    state = train(toy_data, tmp_path / "run", *options, "--stop-time-hours", "0.0006")
    history = state["optimizer_history"][-1]
    assert history["num_updates"] >= 2
    assert history["lr_scheduler_state"]["seconds"] > 1.5
    assert state["last_optimizer_state"]["param_groups"][0]["lr"] < 0.004  # of 0.01
