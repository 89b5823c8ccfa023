"""Options that save memory change nothing of what stock fairseq-train learns."""

from __future__ import annotations

import pytest
import torch

from mtmoe.inference.engine import Translator
from tests.fairseq_run import train

NOISY = ["--capacity-factor", "1.0", "--top-k", "2", "--jitter", "0.1", "--dropout", "0.1"]


def weights_of(toy_data, folder, *options):
    state = train(toy_data, folder, "--max-update", "6", "--update-freq", "2", *options)
    return state["model"]


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


@pytest.fixture(scope="module")
def plain_weights(toy_data, tmp_path_factory):
    """Of a training that saves no memory."""
    return weights_of(toy_data, tmp_path_factory.mktemp("plain"), *NOISY)


@pytest.mark.parametrize("mode", ["full", "keep_communication"])
def test_activation_checkpointing_trains_the_same_weights(toy_data, tmp_path, plain_weights, mode):
    options = ["--checkpoint-activations", mode]
    assert_equal(weights_of(toy_data, tmp_path / "saving", *NOISY, *options), plain_weights)
    translator = Translator.from_checkpoint(tmp_path / "saving" / "checkpoint_last.pt")
    assert len(translator.translate(["abc ab", "j"], "aa", "bb", beam=2)) == 2


def test_tiles_and_host_memory_train_the_same_weights(toy_data, tmp_path, plain_weights):
    options = ["--state-location", "host", "--tile-size", "1000"]
    assert_equal(weights_of(toy_data, tmp_path / "saving", *NOISY, *options), plain_weights)


@pytest.mark.long
def test_state_on_the_host_resumes_bit_exactly(toy_data, tmp_path):
    options = ["--state-location", "host", "--tile-size", "4096", "--adam-kind", "adam"]
    expected = train(toy_data, tmp_path / "whole", "--max-update", "6", *options)
    train(toy_data, tmp_path / "parts", "--max-update", "3", *options)
    resumed = train(toy_data, tmp_path / "parts", "--max-update", "6", *options)
    assert_equal(resumed["model"], expected["model"])


def test_tiny_tiles_are_refused_in_one_sentence(toy_data, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        train(toy_data, tmp_path / "run", "--max-update", "1", "--tile-size", "5")
    assert stop.value.code == 2
    assert "tile_size must be at least 1000, but is 5." in capsys.readouterr().err


@pytest.mark.long
def test_master_weights_of_half_precision_train_in_tiles_and_resume(toy_data, tmp_path):
    half = ["--memory-efficient-fp16", "--cpu", "--fp16-init-scale", "1", "--master-weights"]
    tiles = [*half, "--tile-size", "1000", "--state-location", "host"]
    expected = train(toy_data, tmp_path / "whole", "--max-update", "6", *half)
    train(toy_data, tmp_path / "parts", "--max-update", "3", *tiles)
    found = train(toy_data, tmp_path / "parts", "--max-update", "6", *tiles)
    assert_equal(found["model"], expected["model"])
    for number, state in expected["last_optimizer_state"]["state"].items():
        assert state["master"].dtype == torch.float32
        assert_equal(found["last_optimizer_state"]["state"][number], state)
