"""Merging the experts that go into those that stay, and one expert as a dense layer."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from mtmoe.checkpoint.fairseq_file import load_checkpoint, write_checkpoint
from mtmoe.cli.main import main
from mtmoe.inference.engine import Translator
from mtmoe.surgery.merge import find_nearest, match_hidden_units, merge_experts, merge_pruned
from mtmoe.surgery.prune import prune_checkpoint
from mtmoe.surgery.scratch import Scratch
from tests.inference.tiny_model import TEXT, write_tiny_checkpoint

D, F = 6, 10


def make_expert(seed):
    torch.manual_seed(seed)
    return {
        "w_in": torch.randn(D, F), "b_in": torch.randn(F), "w_out": torch.randn(F, D),
        "b_out": torch.randn(D), "w_gate": torch.randn(D, F),
    }  # fmt: skip


def permute(expert, order):
    return {
        "w_in": expert["w_in"][:, order], "b_in": expert["b_in"][order],
        "w_out": expert["w_out"][order], "b_out": expert["b_out"],
        "w_gate": expert["w_gate"][:, order],
    }  # fmt: skip


def test_an_expert_merged_with_itself_in_another_order_stays_itself():
    expert = make_expert(1)
    order = torch.randperm(F)
    other = permute(expert, order)
    assert torch.equal(order[match_hidden_units(expert, other)], torch.arange(F))
    merged = merge_experts([expert, other], torch.tensor([0.2, 0.6]).double())
    for part, value in expert.items():
        assert_close(merged[part], value)


def test_merged_weights_are_the_mean_weighted_by_use():
    one, other = make_expert(1), make_expert(2)
    merged = merge_experts([one, other], torch.tensor([0.1, 0.3]).double())
    matched = permute(other, match_hidden_units(one, other))
    for part, value in one.items():
        assert_close(merged[part], 0.25 * value + 0.75 * matched[part])


def test_nearest_is_the_smallest_angle_between_router_rows():
    router = torch.tensor([[1.0, 0.0], [0.0, 5.0], [3.0, 1.0], [-1.0, 9.0]])
    assert find_nearest(router, torch.tensor([0, 1])) == [0, 1, 0, 1]


def test_duplicates_that_are_merged_away_leave_the_function_as_it_was(tmp_path):
    """Experts 2 and 3 of each layer repeat 0 and 1, hidden units shuffled."""
    path = write_tiny_checkpoint(tmp_path, activation="swiglu")
    checkpoint = load_checkpoint(path)
    for name in checkpoint.config.moe_layer_names:
        prefix = f"{name}.feed_forward.ffn."
        order = torch.randperm(32)
        for part in ("experts.w_in", "experts.b_in", "experts.w_gate", "experts.w_out"):
            weight = checkpoint.weights[prefix + part]
            dim = 1 if part == "experts.w_out" else weight.dim() - 1
            weight[2:] = weight[:2].index_select(dim, order)
        for part in ("router.weight", "experts.b_out"):
            checkpoint.weights[prefix + part][2:] = checkpoint.weights[prefix + part][:2]
    kept = [torch.tensor([0, 1])] * 2
    plain = prune_checkpoint(checkpoint, kept, Scratch(tmp_path))["model"]
    merged = {k: v.clone() for k, v in plain.items()}
    merge_pruned(checkpoint, kept, torch.full((2, 4), 0.25), merged)
    for name, weight in plain.items():
        assert_close(merged[name], weight)


def test_merging_changes_experts_only(tmp_path):
    checkpoint = load_checkpoint(write_tiny_checkpoint(tmp_path))
    kept = [torch.tensor([1, 2]), torch.arange(4)]
    plain = prune_checkpoint(checkpoint, kept, Scratch(tmp_path))["model"]
    merged = {k: v.clone() for k, v in plain.items()}
    merge_pruned(checkpoint, kept, torch.full((2, 4), 0.25), merged)
    changed = {name for name, weight in plain.items() if not torch.equal(weight, merged[name])}
    assert changed
    assert all(
        name.startswith("transformer.encoder.1.feed_forward.ffn.experts") for name in changed
    )
    merge_pruned(checkpoint, kept, torch.zeros(2, 4), plain)  # nothing was used: nothing changes
    again = prune_checkpoint(checkpoint, kept, Scratch(tmp_path))["model"]
    assert all(torch.equal(again[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"top_k": 2, "activation": "swiglu", "bias_update_rate": 0.1},
        {"moe_every": 1, "shared_ffn_dim": 8, "activation": "swiglu"},
        {"moe_every": 1, "shared_ffn_dim": 8, "encoder_routing": "expert"},
    ],
)
def test_pruned_to_one_expert_a_model_is_a_dense_one(tmp_path, settings):
    path, out = write_tiny_checkpoint(tmp_path, **settings), tmp_path / "dense.pt"
    words = ["prune", str(path), "--keep", "1", "--criterion", "random", "--output"]
    assert main([*words, str(tmp_path / "one.pt")]) == 0
    assert main([*words, str(out), "--dense"]) == 0
    one, dense = load_checkpoint(tmp_path / "one.pt"), load_checkpoint(out)
    assert dense.config.moe_layer_names == ()
    assert not [name for name in dense.weights if "experts" in name or "router" in name]
    source, target = torch.tensor([[4, 9, 8, 2], [5, 2, 1, 1]]), torch.tensor([[5, 6], [7, 8]])
    with torch.no_grad():
        outputs = [c.build_model()(source, target).states for c in (one, dense)]
    assert_close(*outputs, rtol=1e-4, atol=1e-5)
    translations = [Translator(c).translate(list(TEXT[:5]), "en", "de") for c in (one, dense)]
    assert translations[0] == translations[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shared_ffn_dim": 8, "shared_mode": "mixed"}, "shared_mode must be add to become dense"),
        ({"shared_ffn_dim": 8}, "moe_every must be 1 to become dense with a shared network"),
    ],
)
def test_models_that_no_dense_one_equals_are_refused(tmp_path, capsys, settings, message):
    path, out = write_tiny_checkpoint(tmp_path, **settings), tmp_path / "dense.pt"
    words = ["prune", str(path), "--keep", "1", "--criterion", "random", "--dense"]
    assert main([*words, "--output", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_files_of_a_merged_model_hold_no_more_than_its_weights(tmp_path):
    path = write_tiny_checkpoint(tmp_path)
    checkpoint = load_checkpoint(path, is_mapped=True)
    kept = [torch.tensor([0])] * 2
    write_checkpoint(tmp_path / "out.pt", prune_checkpoint(checkpoint, kept, Scratch(tmp_path)))
    num_bytes = sum(w.numel() * 4 for w in load_checkpoint(tmp_path / "out.pt").weights.values())
    assert (tmp_path / "out.pt").stat().st_size < path.stat().st_size
    assert (tmp_path / "out.pt").stat().st_size < num_bytes + 3e5  # vocabulary, names
