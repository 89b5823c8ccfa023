"""Pruning: what stays is what it was."""

from __future__ import annotations

import pytest
import torch

from mtmoe.checkpoint.fairseq_file import load_checkpoint, write_checkpoint
from mtmoe.cli.main import main
from mtmoe.surgery.prune import prune_checkpoint, select_experts
from tests.inference.tiny_model import write_tiny_checkpoint

SOURCE, TARGET = torch.tensor([[4, 9, 8, 2]]), torch.tensor([[5, 6, 7]])


def prune(checkpoint, kept, tmp_path):
    path = tmp_path / "pruned.pt"
    write_checkpoint(path, prune_checkpoint(checkpoint, kept))
    return load_checkpoint(path)


@torch.no_grad()
def states(checkpoint):
    return checkpoint.build_model()(SOURCE, TARGET)


def test_the_most_important_are_selected_ties_by_number():
    importance = torch.tensor([[0.1, 0.4, 0.2, 0.4], [0.3, 0.3, 0.3, 0.1]])
    kept = select_experts(importance, 2)
    assert [k.tolist() for k in kept] == [[1, 3], [0, 1]]


def test_keeping_all_experts_changes_nothing(tmp_path):
    checkpoint = load_checkpoint(write_tiny_checkpoint(tmp_path, moe_every=1, top_k=2))
    pruned = prune(checkpoint, [torch.arange(4)] * 4, tmp_path)
    assert torch.equal(states(pruned).states, states(checkpoint).states)


def test_experts_that_no_token_chose_do_not_matter(tmp_path):
    """With raw top-1 weights only the softmax's sum changes; the experts' outputs do not."""
    checkpoint = load_checkpoint(write_tiny_checkpoint(tmp_path, moe_every=2, top_k=1))
    before = states(checkpoint)
    used = [r.expert.unique() for r in before.routings]
    keep = max(len(u) for u in used)
    others = [[e for e in range(4) if e not in u.tolist()] for u in used]
    kept = [
        torch.tensor(sorted(u.tolist() + o[: keep - len(u)]))
        for u, o in zip(used, others, strict=True)
    ]
    after = states(prune(checkpoint, kept, tmp_path))
    assert torch.equal(kept[0][after.routings[0].expert], before.routings[0].expert)


def test_a_pruned_checkpoint_has_the_selected_rows(tmp_path):
    checkpoint = load_checkpoint(write_tiny_checkpoint(tmp_path, moe_every=1))
    kept = [
        torch.tensor([n % 4, 3]).unique() if n % 4 != 3 else torch.tensor([0, 3]) for n in range(4)
    ]
    pruned = prune(checkpoint, kept, tmp_path)
    assert pruned.config.router.num_experts == 2
    for name, experts in zip(checkpoint.config.moe_layer_names, kept, strict=True):
        for part in ("router.weight", "experts.w_in", "experts.b_out"):
            key = f"{name}.feed_forward.ffn.{part}"
            assert torch.equal(pruned.weights[key], checkpoint.weights[key][experts])


def run_prune(tmp_path, *options, text="Save the file.\nClose all windows!\n", **config):
    model = write_tiny_checkpoint(tmp_path, **config)
    (tmp_path / "text.en").write_text(text, "utf-8")
    words = [
        "prune",
        str(model),
        "--output",
        str(tmp_path / "out.pt"),
        "--text",
        str(tmp_path / "text.en"),
    ]
    return main([*words, *options])


def test_command_keeps_the_experts_that_the_text_uses(tmp_path, capsys):
    assert run_prune(tmp_path, "--keep", "2") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'out.pt'}\n"
    assert "encoder.1: kept experts" in captured.err
    assert load_checkpoint(tmp_path / "out.pt").config.router.num_experts == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--keep", "0"],
            "keep must be between top_k (1) and the experts of a layer (4), but is 0",
        ),
        (["--keep", "5"], "but is 5"),
        (["--keep", "2", "--languages", "en,xx"], "--languages must be among de, en, fr"),
        (["--keep", "2", "--languages", "en"], "must name two or more languages"),
        (["--keep", "2", "--languages", "de,fr"], "must be in a language that the checkpoint"),
        (["--keep", "2", "--source-lang", "xx"], "must be one of de, en, fr, but is 'xx'"),
        (["--keep", "2", "--limit", "0"], "--limit must be at least 1"),
        (["--keep", "two"], "invalid int value"),
    ],
)
def test_command_refuses_wrong_options_in_one_sentence(tmp_path, capsys, options, message):
    assert run_prune(tmp_path, *options) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out.pt").exists()


def test_command_refuses_dense_models_and_empty_text(tmp_path, capsys):
    assert run_prune(tmp_path, "--keep", "2", moe_every=0) == 2
    assert "must have MoE layers to prune, but is dense" in capsys.readouterr().err
    assert run_prune(tmp_path, "--keep", "2", text="\n \n") == 2
    assert "must hold sentences" in capsys.readouterr().err
