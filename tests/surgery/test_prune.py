"""Pruning: what stays is what it was."""

from __future__ import annotations

import json

import pytest
import torch

from mtmoe.checkpoint.fairseq_file import load_checkpoint, write_checkpoint
from mtmoe.cli.main import main
from mtmoe.inference.engine import Translator
from mtmoe.surgery.prune import prune_checkpoint
from mtmoe.surgery.scratch import Scratch
from tests.inference.tiny_model import write_tiny_checkpoint

SOURCE, TARGET = torch.tensor([[4, 9, 8, 2]]), torch.tensor([[5, 6, 7]])


def prune(checkpoint, kept, tmp_path):
    path = tmp_path / "pruned.pt"
    write_checkpoint(path, prune_checkpoint(checkpoint, kept, Scratch(tmp_path)))
    assert not list(tmp_path.glob("*.scratch"))
    return load_checkpoint(path)


@torch.no_grad()
def states(checkpoint):
    return checkpoint.build_model()(SOURCE, TARGET)


def test_keeping_all_experts_changes_nothing(tmp_path):
    checkpoint = load_checkpoint(write_tiny_checkpoint(tmp_path, moe_every=1, top_k=2))
    pruned = prune(checkpoint, [torch.arange(4)] * 4, tmp_path)
    assert pruned.config == checkpoint.config
    assert torch.equal(states(pruned).states, states(checkpoint).states)
    for name, weight in checkpoint.weights.items():
        assert torch.equal(weight, pruned.weights[name]), name


def test_experts_that_no_token_chose_do_not_matter(tmp_path):
    """With raw top-1 weights only the softmax's sum changes; the experts' outputs do not."""
    checkpoint = load_checkpoint(write_tiny_checkpoint(tmp_path, moe_every=2, top_k=1))
    before = states(checkpoint)
    used = [r.expert.unique() for r in before.routings]
    after = states(prune(checkpoint, used, tmp_path))
    for kept, pruned, whole in zip(used, after.routings, before.routings, strict=True):
        assert torch.equal(kept[pruned.expert], whole.expert)


@pytest.mark.parametrize("settings", [{}, {"activation": "swiglu", "bias_update_rate": 0.1}])
def test_a_pruned_checkpoint_has_the_selected_rows_and_all_else_unchanged(tmp_path, settings):
    checkpoint = load_checkpoint(write_tiny_checkpoint(tmp_path, moe_every=1, **settings))
    kept = [torch.tensor(rows) for rows in ([0, 3], [1], [0, 1, 2, 3], [1, 2, 3])]
    pruned = prune(checkpoint, kept, tmp_path)
    assert pruned.config.experts_by_layer == "2,1,4,3"
    rows = dict(zip(checkpoint.config.moe_layer_names, kept, strict=True))
    for name, weight in pruned.weights.items():
        layer = ".".join(name.split(".")[:2])
        has_rows = ".ffn.experts." in name or ".ffn.router." in name
        expected = checkpoint.weights[name]
        assert torch.equal(weight, expected[rows[layer]] if has_rows else expected), name


@pytest.mark.parametrize("top_k", [1, 3])
def test_pruned_models_translate_and_prune_again(tmp_path, top_k):
    path = write_tiny_checkpoint(tmp_path, moe_every=1, top_k=top_k)
    kept = [torch.tensor(rows) for rows in ([0, 1, 3], [1, 2], [0, 1, 2], [3])]
    once = prune(load_checkpoint(path), kept, tmp_path)
    assert len(Translator(once).translate(["Save the file."], "en", "de")) == 1
    again = [torch.tensor(rows) for rows in ([0, 2], [1], [0], [0])]
    twice = prune(once, again, tmp_path)
    direct = [k[a] for k, a in zip(kept, again, strict=True)]
    at_once = prune(load_checkpoint(path), direct, tmp_path)
    assert twice.config == at_once.config
    assert torch.equal(states(twice).states, states(at_once).states)


@pytest.mark.parametrize("weight", ["auto", "normalised", "raw"])
def test_pruned_to_one_expert_every_token_gets_it_whole(tmp_path, weight):
    settings = {"top_k": 2, "choice_weight": weight, "second_choice": "sampled"}
    checkpoint = load_checkpoint(write_tiny_checkpoint(tmp_path, **settings))
    pruned = prune(checkpoint, [torch.tensor([2])] * 2, tmp_path)
    assert pruned.config.router.num_experts == pruned.config.router.top_k == 1
    for routing in states(pruned).routings:
        assert torch.equal(routing.weight, torch.ones_like(routing.weight))


def run_prune(tmp_path, *options, text="Save the file.\nClose all windows!\n", **config):
    model = write_tiny_checkpoint(tmp_path, **config)
    (tmp_path / "text.en").write_text(text, "utf-8")
    output, text_file = str(tmp_path / "out.pt"), str(tmp_path / "text.en")
    words = ["prune", str(model), "--output", output, *options]
    return main(words if "--stats" in options else [*words, "--text", text_file])


def test_command_keeps_the_experts_that_the_text_uses(tmp_path, capsys):
    assert run_prune(tmp_path, "--keep", "2") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'out.pt'}\n"
    assert "encoder.1: kept experts" in captured.err
    assert "to train on, give fairseq-train --num-experts 2\n" in captured.err
    assert load_checkpoint(tmp_path / "out.pt").config.router.num_experts == 2


def test_command_reports_what_stayed_and_the_sizes(tmp_path):
    report = tmp_path / "report.json"
    assert run_prune(tmp_path, "--keep", "3,1", "--report", str(report), moe_every=1) == 0
    found = json.loads(report.read_text())
    assert [len(kept) for kept in found["kept"].values()] == [3, 3, 1, 1]
    out = load_checkpoint(tmp_path / "out.pt")
    assert out.config.experts_by_layer == "3,3,1,1"
    assert found["file_bytes"]["after"] == (tmp_path / "out.pt").stat().st_size
    assert found["parameters"]["after"] == sum(w.numel() for w in out.weights.values())
    assert found["parameters"]["before"] > found["parameters"]["after"]


@pytest.mark.parametrize(
    "options",
    [
        ["--criterion", "use"],
        ["--criterion", "norm"],
        ["--criterion", "random", "--seed", "3"],
        ["--directions", "en-fr"],
        ["--languages", "en,de"],
        ["--merge"],
        ["--beam", "2"],
    ],
)
def test_every_choice_leaves_a_model_that_translates(tmp_path, options):
    assert run_prune(tmp_path, "--total", "3,2", *options, moe_every=1) == 0
    translator = Translator.from_checkpoint(tmp_path / "out.pt")
    numbers = load_checkpoint(tmp_path / "out.pt").config.num_experts_by_layer
    assert (sum(numbers[:2]), sum(numbers[2:])) == (3, 2)
    assert len(translator.translate(["Save the file."], "en", "fr")) == 1


def test_meters_of_the_old_experts_do_not_stay(tmp_path):
    """fairseq restores them in the midst of an epoch, where they would not fit fewer experts."""
    path, out = write_tiny_checkpoint(tmp_path), tmp_path / "out.pt"
    state = torch.load(path, weights_only=False)
    extra = {"metrics": {"train": [torch.ones(4)]}, "best": 3.0}
    torch.save(state | {"extra_state": extra}, path)
    words = ["prune", str(path), "--keep", "2", "--criterion", "random", "--output", str(out)]
    assert main(words) == 0
    found = torch.load(out, weights_only=False)["extra_state"]
    assert found == {"best": 3.0, "previous_training_time": 0.0}


def test_random_experts_need_no_text(tmp_path):
    model, out = write_tiny_checkpoint(tmp_path), tmp_path / "out.pt"
    words = ["prune", str(model), "--keep", "2", "--output", str(out), "--criterion", "random"]
    assert main(words) == 0
    first = out.read_bytes()
    assert main(words) == 0
    assert out.read_bytes() == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep", "0"], "keep must be between 1 and the experts of a layer (4), but is 0"),
        (["--keep", "5"], "but is 5"),
        (["--keep", "2", "--languages", "en,xx"], "--languages must be among de, en, fr"),
        (["--keep", "2", "--languages", "en"], "must name two or more languages"),
        (["--keep", "2", "--languages", "de,fr"], "--languages must leave a direction that the ch"),
        (["--keep", "2", "--seed", "3"], "--seed must be given with --criterion random, but it is"),
        (
            ["--keep", "2", "--decoding", "reference", "--beam", "2"],
            "--beam must be given with --decoding search, but is given without it",
        ),
        (
            ["--keep", "2", "--decoding", "reference", "--source-lang", "en"],
            "--source-lang must be given with --decoding search",
        ),
        (["--keep", "2", "--source-lang", "xx"], "must be one of de, en, fr, but is 'xx'"),
        (["--keep", "2", "--limit", "0"], "--limit must be at least 1"),
        (["--keep", "2", "--beam", "0"], "--beam must be at least 1"),
        (["--keep", "two"], "experts to keep must be N or N,M, but are 'two'"),
        (["--keep=--4"], "experts to keep must be N or N,M, but are '--4'"),
        (["--keep", "9" * 5000], "experts to keep must be N or N,M, but are '9999"),
        (["--keep", "2", "--seed", "9" * 20], "--seed must be between 0 and 2 ** 63 - 1, but"),
        (["--keep", "1,2,3"], "must be N or N,M, but are '1,2,3'"),
        (["--keep", "2", "--total", "2,2"], "not allowed with argument"),
        (["--total", "1,5"], "total must be between 1 (floor 1 in each decoder layer) and 4"),
        (["--total", "1,1", "--floor", "2"], "total must be between 2"),
        (["--total", "1,1", "--floor", "0"], "floor must be at least 1, but is 0"),
        (["--keep", "2", "--directions", "de-en"], "the statistics must have de-en, or its source"),
        (["--keep", "2", "--directions", "en-de", "--languages", "en,de"], "without --directions"),
        (["--keep", "2", "--dense"], "each layer must have 1 expert to become dense"),
        (["--keep", "1", "--dense", "--keep-optimizer"], "must be given without --keep-optimizer"),
        (["--keep", "2", "--keep-optimizer"], "last_optimizer_state must have an entry for each"),
        (["--keep", "2", "--report", "/no/such/r.json"], "--report must lie in a folder"),
    ],
)
def test_command_refuses_wrong_options_in_one_sentence(tmp_path, capsys, options, message):
    assert run_prune(tmp_path, *options) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint_tiny.pt", "text.en"]


@pytest.mark.parametrize(
    "options",
    [["--beam", "2"], ["--decoding", "reference"], ["--limit", "3"], ["--source-lang", "x"]],
)
def test_options_of_text_are_refused_without_text(tmp_path, capsys, options):
    words = ["prune", "none.pt", "--keep", "2", "--output", str(tmp_path / "out"), *options]
    assert main([*words, "--criterion", "random"]) == 2
    assert "with --text, but is given without it" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["prune {} --keep 2 --criterion random", "aggregate {0} {0}"])
def test_a_checkpoint_goes_to_no_device(tmp_path, capsys, command):
    words = command.format(write_tiny_checkpoint(tmp_path)).split()
    assert main([*words, "--output", "/dev/null"]) == 2
    assert "--output must be a file, but is a device or a pipe: /dev/" in capsys.readouterr().err


def test_a_report_does_not_take_the_place_of_the_model(tmp_path, capsys):
    path = write_tiny_checkpoint(tmp_path)
    out = tmp_path / "out"
    words = ["prune", str(path), "--keep", "2", "--criterion", "random"]
    assert main([*words, "--output", str(out), "--report", f"{tmp_path}/./out"]) == 2
    assert "--report must be another file than --output" in capsys.readouterr().err
    assert not out.exists()


def test_command_refuses_dense_models_and_empty_text(tmp_path, capsys):
    assert run_prune(tmp_path, "--keep", "2", moe_every=0) == 2
    assert "must have MoE layers to prune, but is dense" in capsys.readouterr().err
    assert run_prune(tmp_path, "--keep", "2", text="\n \n") == 2
    assert "must hold sentences" in capsys.readouterr().err
