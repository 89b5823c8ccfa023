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


@pytest.mark.parametrize("mode", ["full", "keep_communication"])
def test_activation_checkpointing_trains_the_same_weights(toy_data, tmp_path, mode):
    expected = weights_of(toy_data, tmp_path / "plain", *NOISY)
    options = ["--checkpoint-activations", mode]
    assert_equal(weights_of(toy_data, tmp_path / "saving", *NOISY, *options), expected)
    translator = Translator.load(tmp_path / "saving" / "checkpoint_last.pt")
    assert len(translator.translate(["abc ab", "j"], "aa", "bb", beam=2)) == 2


@pytest.mark.parametrize(
    "options", [["--state-location", "host", "--tile-size", "1000"], ["--tile-size", "1001"]]
)
def test_tiles_and_host_memory_train_the_same_weights(toy_data, tmp_path, options):
    expected = weights_of(toy_data, tmp_path / "plain")
    assert_equal(weights_of(toy_data, tmp_path / "saving", *options), expected)


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
