"""Experts of several models side by side."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.cli.main import main
from mtmoe.inference.engine import Translator
from tests.inference.tiny_model import TEXT, write_tiny_checkpoint

SOURCE, TARGET = torch.tensor([[4, 9, 8, 6, 2], [5, 7, 2, 1, 1]]), torch.tensor([[5, 6], [7, 8]])
MODES = {
    "top-1, raw": {},
    "top-2": {"top_k": 2},
    "top-2, raw": {"top_k": 2, "choice_weight": "raw"},
    "top-3, normalised": {"top_k": 3, "choice_weight": "normalised"},
    "shared network": {"shared_ffn_dim": 8},
    "shared network, mixed": {"shared_ffn_dim": 8, "shared_mode": "mixed", "top_k": 2},
    "conditional": {"shared_ffn_dim": 8, "shared_mode": "conditional"},
    "expert choice": {"encoder_routing": "expert"},
    "expert choice, top-2": {"encoder_routing": "expert", "top_k": 2, "capacity_factor": 0.7},
    "expert choice, normalised": {
        "encoder_routing": "expert", "top_k": 2, "choice_weight": "normalised",
    },
    "bias": {"bias_update_rate": 0.1, "top_k": 2},
    "bias, top-1": {"bias_update_rate": 0.1},
    "capacity in evaluation": {"eval_capacity_factor": 1.0},
    "swiglu": {"activation": "swiglu"},
    "experts by layer": {"experts_by_layer": "4,1", "top_k": 2},
    "experts by layer, top-1": {"experts_by_layer": "1,4"},
}  # fmt: skip


def aggregate(tmp_path, *parents, options=()):
    out = tmp_path / "joint.pt"
    assert main(["aggregate", *map(str, parents), "--output", str(out), *options]) == 0
    return load_checkpoint(out)


def write_parent(folder, seed=1, **settings):
    folder.mkdir(exist_ok=True)
    path = write_tiny_checkpoint(folder, seed=seed, **settings)
    checkpoint = load_checkpoint(path)
    for name, tensor in checkpoint.weights.items():
        if name.endswith("choice_bias"):
            tensor.uniform_(-0.3, 0.3, generator=torch.manual_seed(seed))
    torch.save(checkpoint.state, path)
    return path


@torch.no_grad()
def states(checkpoint):
    return checkpoint.build_model()(SOURCE, TARGET).states


@pytest.mark.parametrize(
    ("mode", "num_parents"),
    [*((mode, 2) for mode in MODES), ("top-1, raw", 3), ("top-2", 3), ("expert choice", 3)],
)
def test_equal_parents_give_exactly_their_own_function(tmp_path, mode, num_parents):
    path = write_parent(tmp_path / "a", **MODES[mode])
    joint, parent = aggregate(tmp_path, *[path] * num_parents), load_checkpoint(path)
    sizes = tuple(num_parents * size for size in parent.config.num_experts_by_layer)
    assert joint.config.num_experts_by_layer == sizes
    assert_close(states(joint), states(parent), rtol=1e-6, atol=1e-6)


def test_rows_are_joined_and_the_rest_is_averaged_or_of_one(tmp_path):
    paths = [write_parent(tmp_path / str(seed), seed, top_k=2) for seed in (1, 2)]
    one, other = (load_checkpoint(path).weights for path in paths)
    averaged = aggregate(tmp_path, *paths).weights
    second = aggregate(tmp_path, *paths, options=("--dense", "2")).weights
    for name, weight in averaged.items():
        if ".experts." in name or name.endswith("router.weight"):
            assert torch.equal(weight, torch.cat([one[name], other[name]])), name
        else:
            assert_close(weight, (one[name] + other[name]) / 2)
            assert torch.equal(second[name], other[name]), name


def test_a_joint_model_translates_and_is_pruned_back_to_a_parent(tmp_path):
    paths = [write_parent(tmp_path / str(seed), seed) for seed in (1, 2)]
    joint = aggregate(tmp_path, *paths, options=("--dense", "1"))
    assert len(Translator(joint).translate(list(TEXT[:3]), "en", "de")) == 3
    assert joint.config.router.num_experts == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embed_dim": 32}, "embed_dim of {b} must be 16 as in {a}, but is 32"),
        ({"top_k": 2}, "top_k of {b} must be 1 as in {a}, but is 2"),
        ({"moe_every": 0}, "moe_every of {b} must be 2 as in {a}, but is 0"),
        ({"languages": ("de", "en", "es")}, "parents must have one vocabulary"),
        ({"encoder_tags": "target"}, "encoder_tags of {b} must be both, but is target"),
        ({"first_position": 2}, "first_position of {b} must be 0 as in {a}, but is 2"),
    ],
)
def test_parents_that_do_not_fit_are_refused(tmp_path, capsys, settings, message):
    a = write_parent(tmp_path / "a")
    (tmp_path / "b").mkdir()
    b = write_tiny_checkpoint(tmp_path / "b", **settings)
    out = tmp_path / "joint.pt"
    assert main(["aggregate", str(a), str(b), "--output", str(out)]) == 2
    assert message.format(a=a, b=b) in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "aggregate must be given two or more checkpoints, but one is"),
        (["--dense", "3"], "--dense must be average or a number from 1 to 2, but is '3'"),
        (["--dense", "all"], "--dense must be average or a number from 1 to 2"),
    ],
)
def test_wrong_options_are_refused(tmp_path, capsys, options, message):
    parents = [str(write_parent(tmp_path / "a"))] * (2 if options else 1)
    assert main(["aggregate", *parents, "--output", str(tmp_path / "o.pt"), *options]) == 2
    assert message in capsys.readouterr().err


def test_dense_parents_are_refused(tmp_path, capsys):
    path = str(write_parent(tmp_path / "a", moe_every=0))
    assert main(["aggregate", path, path, "--output", str(tmp_path / "o.pt")]) == 2
    assert f"parents must have MoE layers, but {path} is dense" in capsys.readouterr().err
