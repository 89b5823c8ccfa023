"""Experts out of dense layers."""

from __future__ import annotations

import errno
import os

import pytest
import torch
from torch.testing import assert_close

from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.cli.main import main
from mtmoe.inference.engine import Translator
from tests.inference.tiny_model import TEXT, write_tiny_checkpoint
from tests.interop.golden.make import FOLDERS
from tests.interop.test_fairseq_models import fairseq_model, write_text_files

SOURCE, TARGET = torch.tensor([[4, 9, 8, 6, 2], [5, 7, 2, 1, 1]]), torch.tensor([[5, 6], [7, 8]])
MODES = {
    "top-2": [],
    "top-3": ["--top-k", "3"],
    "every layer": ["--moe-every", "1"],
    "all experts, raw": ["--top-k", "4", "--set", "choice_weight=raw"],
    "sampled second choice": ["--set", "second_choice=sampled"],
    "capacity in training": ["--set", "capacity_factor=1.25", "drop_policy=order"],
    "bias": ["--set", "bias_update_rate=0.01"],
    "language": ["--set", "router_input=language", "router_language=both"],
    "token and language": ["--set", "router_input=token_and_language"],
    "torch backend": ["--set", "backend=torch"],
    "mixed": ["--shared", "mixed"],
    "conditional": ["--shared", "conditional"],
    "normalised": ["--set", "choice_weight=normalised"],
    "one expert": ["--experts", "1", "--top-k", "1"],
    "all of the experts, by tokens and by experts": [
        "--top-k", "4", "--set", "encoder_routing=expert", "choice_weight=raw",
    ],
    "experts that take all tokens": [
        "--set", "encoder_routing=expert", "capacity_factor=2", "choice_weight=normalised",
    ],
    "capacity in evaluation for all tokens": ["--set", "eval_capacity_factor=2"],
    "losses and noise of training": [
        "--set", "z_loss_weight=0.1", "gating_dropout=0.2", "expert_output_masking=0.2",
    ],
    "capacity by score": ["--set", "capacity_factor=1", "drop_policy=score", "min_capacity=2"],
    "mixed, all experts raw": ["--shared", "mixed", "--top-k", "4", "--set", "choice_weight=raw"],
    "mixed, language": ["--shared", "mixed", "--set", "router_input=language"],
    "added": ["--shared", "add"],
    "added, top-1": ["--shared", "add", "--top-k", "1"],
    "added, top-1, raw": ["--shared", "add", "--top-k", "1", "--set", "choice_weight=raw"],
    "added, expert choice": ["--shared", "add", "--set", "encoder_routing=expert"],
    "added, capacity": ["--shared", "add", "--set", "eval_capacity_factor=0.5"],
}  # fmt: skip


def upcycle(tmp_path, *options, **settings):
    path = write_tiny_checkpoint(tmp_path, **({"moe_every": 0, "dropout": 0.0} | settings))
    words = ["upcycle", str(path), "--output", str(tmp_path / "moe.pt"), "--experts", "4"]
    return path, main([*words, *options])


def tagged(checkpoint):
    """The source, with the tags that routers may read."""
    V = len(checkpoint.vocabulary.symbols)
    return torch.cat([torch.tensor([[V - 3, V - 2]] * 2), SOURCE], dim=1)


@torch.no_grad()
def states(checkpoint):
    return checkpoint.build_model()(tagged(checkpoint), TARGET).states


@pytest.mark.parametrize("mode", list(MODES))
def test_the_new_model_computes_the_dense_function(tmp_path, mode):
    activation = "swiglu" if len(mode) % 2 else "relu"
    path, code = upcycle(tmp_path, *MODES[mode], activation=activation)
    assert code == 0
    dense, moe = load_checkpoint(path), load_checkpoint(tmp_path / "moe.pt")
    assert set(moe.config.num_experts_by_layer) == {1 if mode == "one expert" else 4}
    expected = states(dense)
    assert_close(states(moe), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-k", "1"], "weights of the choices must add up to 1 to begin as the dense model"),
        (["--set", "choice_weight=raw"], "but with top_k 2 of 4 and raw weights"),
        (["--shared", "mixed", "--top-k", "1"], "must add up to 1"),
        (["--set", "encoder_routing=expert"], "encoder_routing must be token to begin as"),
        (
            ["--set", "encoder_routing=expert", "capacity_factor=1.9"],
            "encoder_routing must be token to begin as",
        ),
        (["--set", "eval_capacity_factor=1.9"], "eval_capacity_factor must be 0 (or so large"),
        (["--top-k", "5"], "top_k must be between 1 and num_experts (4), but is 5"),
        (["--moe-every", "3"], "moe_every must be at most the number of layers, but is 3"),
        (["--moe-every", "0"], "--moe-every must be at least 1, but is 0"),
        (["--set", "embed_dim=8"], "--set must be NAME=VALUE with one of"),
        (["--set", "first_position=2"], "--set must be NAME=VALUE with one of"),
        (["--set", "jitter=0", "jitter=0.1"], "--set must give each name once, but jitter twice"),
        (["--set", "jitter"], "--set must be NAME=VALUE with one of"),
        (["--noise", "-1"], "noise must be between 0 and 100, but is -1.0"),
        (["--noise", "inf"], "noise must be between 0 and 100, but is inf"),
        (["--noise", "1e39"], "noise must be between 0 and 100, but is 1e+39"),
        (["--noise", "nan"], "noise must be between 0 and 100, but is nan"),
        (["--experts", "99999999"], "num_experts must be between 1 and 100000, but is 99999999"),
        (["--seed", "9" * 20], "--seed must be between 0 and 2 ** 63 - 1, but is 9999"),
        (["--seed", "-1"], "--seed must be between 0 and 2 ** 63 - 1, but is -1."),
        (["--fresh-share", "2"], "fresh_share must be between 0 and 1, but is 2.0"),
    ],
)
def test_what_cannot_begin_as_the_dense_model_is_refused_with_the_reason(
    tmp_path, capsys, options, message
):
    _, code = upcycle(tmp_path, *options)
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "moe.pt").exists()


def test_a_model_with_experts_is_refused(tmp_path, capsys):
    _, code = upcycle(tmp_path, moe_every=2)
    assert code == 2
    assert "checkpoint must be dense to be upcycled" in capsys.readouterr().err


def experts_of(tmp_path, *options):
    upcycle(tmp_path, *options)
    weights = load_checkpoint(tmp_path / "moe.pt").weights
    return weights["encoder.1.feed_forward.ffn.experts.w_in"]  # (E, D, F)


def test_noise_makes_each_expert_another_one_as_far_as_it_is_large(tmp_path):
    plain, noisy = experts_of(tmp_path), experts_of(tmp_path, "--noise", "0.1")
    assert_close((noisy - plain).std() / plain.std(), torch.tensor(0.1), rtol=0.1, atol=0)
    assert not torch.equal(noisy[0], noisy[1])
    assert torch.equal(noisy, experts_of(tmp_path, "--noise", "0.1"))
    assert not torch.equal(noisy, experts_of(tmp_path, "--noise", "0.1", "--seed", "2"))


def test_a_share_of_the_hidden_units_is_drawn_anew(tmp_path):
    plain, mixed = experts_of(tmp_path), experts_of(tmp_path, "--fresh-share", "0.25")
    is_fresh = (plain != mixed).all(1)  # (E, F)
    assert torch.equal(is_fresh, (plain != mixed).any(1))
    assert 0.1 < is_fresh.float().mean() < 0.4
    assert not torch.equal(is_fresh[0], is_fresh[1])


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
@pytest.mark.parametrize("kind", ["huggingface", "fairseq"])
@pytest.mark.parametrize("options", [[], ["--shared", "add", "--top-k", "1"]], ids=["top-2", "add"])
def test_a_dense_model_of_another_program_is_upcycled_after_convert(tmp_path, kind, options):
    source, files = write_foreign(tmp_path, kind)
    taken, out = tmp_path / "taken.pt", tmp_path / "moe.pt"
    assert main(["convert", str(source), *files, "--output", str(taken)]) == 0
    words = ["--experts", "4", "--moe-every", "1", *options]
    assert main(["upcycle", str(taken), "--output", str(out), *words]) == 0
    dense, moe = load_checkpoint(taken), load_checkpoint(out)
    assert len(moe.config.moe_layer_names) == dense.config.encoder_layers * 2
    assert moe.decoder_start == dense.decoder_start == "end_and_tag"
    assert_close(states(moe), states(dense), rtol=1e-6, atol=1e-6)
    lines = list(TEXT[:3])
    found, expected = (Translator(c).translate(lines, "eng_Latn", "deu_Latn") for c in (moe, dense))
    assert found == expected


def write_foreign(folder, kind):
    """A dense model of another program, and the options of `convert` that go with it."""
    if kind == "huggingface":
        return FOLDERS["dense"], []
    model, args = fairseq_model()
    torch.save({"args": args, "model": model.state_dict()}, folder / "theirs.pt")
    return folder / "theirs.pt", write_text_files(folder)


def test_routers_read_only_languages_that_the_tags_name(tmp_path, capsys):
    path = write_tiny_checkpoint(tmp_path, encoder_tags="source", moe_every=0)
    words = ["upcycle", str(path), "--experts", "4", "--output", str(tmp_path / "moe.pt")]
    assert main([*words, "--set", "router_input=language"]) == 2
    assert "router_language must be source with encoder_tags source" in capsys.readouterr().err
    assert main([*words, "--set", "router_input=language", "router_language=source"]) == 0


def test_a_full_disk_is_one_sentence_and_nothing_is_left(tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.posix_fallocate", fail)
    _, code = upcycle(tmp_path)
    assert code == 1
    assert capsys.readouterr().err == "error: No space left on device.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_tiny.pt"]
