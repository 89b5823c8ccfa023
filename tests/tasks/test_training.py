"""Stock fairseq-train with our task, model, criterion and optimizer."""

from __future__ import annotations

import shutil

import pytest
import torch

from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.inference.engine import Translator
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


METHODS = {
    "any top-k, raw weights": ["--top-k", "3", "--choice-weight", "raw"],
    "minimum capacity": ["--capacity-factor", "1.0", "--min-capacity", "4"],
    "evaluation capacity": ["--capacity-factor", "1.0", "--eval-capacity-factor", "2.0"],
    "drops in order": ["--capacity-factor", "0.8", "--drop-policy", "order"],
    "drops at random": ["--capacity-factor", "0.8", "--drop-policy", "random", "--top-k", "2"],
    "drops by score": ["--capacity-factor", "0.8", "--drop-policy", "score"],
    "jitter": ["--jitter", "0.1"],
    "sampled second choice": ["--top-k", "2", "--second-choice", "sampled"],
    "z-loss": ["--z-loss-weight", "0.001"],
    "balance without a loss": ["--bias-update-rate", "0.01", "--balance-loss-weight", "0"],
    "expert choice": ["--encoder-routing", "expert", "--top-k", "2"],
    "routing by language": ["--router-input", "language", "--router-language", "both"],
    "language embedding": ["--router-input", "token_and_language"],
    "gating dropout": ["--gating-dropout", "0.2"],
    "expert output masking": ["--expert-output-masking", "0.2"],
    "shared expert": ["--shared-ffn-dim", "32"],
    "residual MoE": ["--shared-ffn-dim", "32", "--shared-mode", "mixed"],
    "conditional routing": [
        "--shared-ffn-dim", "32", "--shared-mode", "conditional", "--gate-dropout", "0.2",
    ],
    "gelu": ["--activation", "gelu"],
    "swiglu": ["--activation", "swiglu"],
    "experts by layer": ["--experts-by-layer", "4,1,3,2", "--top-k", "2"],
    "torch backend": ["--backend", "torch"],
    "dropout of hidden numbers": ["--activation-dropout", "0.1"],
}  # fmt: skip


@pytest.mark.parametrize("method", list(METHODS))
def test_every_routing_method_trains_and_its_checkpoint_translates(toy_data, tmp_path, method):
    options = ["--max-update", "20", "--directions", "aa-bb", *METHODS[method]]
    state = train(toy_data, tmp_path / "run", *options)
    assert state["extra_state"]["val_loss"] < 6.5  # bits a token; an untrained model has 7
    translator = Translator.from_checkpoint(tmp_path / "run" / "checkpoint_last.pt")
    assert len(translator.translate(["abc ab", "j"], "aa", "bb", beam=2)) == 2


def test_bias_balancing_moves_the_biases_of_all_layers_after_each_update(toy_data, tmp_path):
    options = ["--bias-update-rate", "0.5", "--update-freq", "2", "--max-update", "3"]
    weights = train(toy_data, tmp_path / "run", *options)["model"]
    biases = [w for name, w in weights.items() if name.endswith("router.choice_bias")]
    assert len(biases) == 4
    for bias in biases:
        assert bias.abs().sum() > 0
        assert set((bias / 0.5).tolist()) <= {-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0}


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
        (["--decoder-routing", "expert"], "decoder_routing must be token"),
        (
            ["--shared-ffn-dim", "0", "--shared-mode", "mixed"],
            "shared_mode must be add, unless shared_ffn_dim",
        ),
        (["--backend", "triton"], "backend must be auto, torch or cpu"),
        (
            ["--router-input", "language", "--encoder-tags", "source"],
            "router_language must be source with encoder_tags source, but is target",
        ),
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
