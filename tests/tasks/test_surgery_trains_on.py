"""What surgery leaves trains on in stock fairseq-train."""

from __future__ import annotations

import shutil

import pytest
import torch

from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.cli.main import main
from mtmoe.inference.engine import Translator
from tests.fairseq_run import train

pytestmark = pytest.mark.slow
COMMON = ["--directions", "aa-bb", "--top-k", "2", "--shared-ffn-dim", "0"]
BY_LAYER = ["--num-experts", "3", "--experts-by-layer", "3,3,2,2"]


@pytest.fixture(scope="module")
def trained(toy_data, tmp_path_factory):
    """The folder of a run of 40 updates."""
    folder = tmp_path_factory.mktemp("trained")
    train(toy_data, folder, "--max-update", "40", *COMMON)
    return folder


@pytest.fixture(scope="module")
def pruned(trained):
    """A pruned checkpoint, with its optimizer's state beside one without."""
    words = ["prune", str(trained / "checkpoint_last.pt"), "--keep", "3,2", "--criterion", "random"]
    assert main([*words, "--output", str(trained / "bare.pt")]) == 0
    assert main([*words, "--output", str(trained / "whole.pt"), "--keep-optimizer"]) == 0
    return trained


def check_goes_on(folder, num_experts):
    checkpoint = load_checkpoint(folder / "checkpoint_last.pt")
    assert checkpoint.config.num_experts_by_layer == num_experts
    assert len(Translator(checkpoint).translate(["abc ab"], "aa", "bb", beam=2)) == 1


@pytest.mark.parametrize("name", ["bare", "whole"])
def test_a_pruned_checkpoint_is_fine_tuned(toy_data, pruned, tmp_path, name):
    start = ["--finetune-from-model", str(pruned / f"{name}.pt")]
    state = train(toy_data, tmp_path, "--max-update", "5", *COMMON, *BY_LAYER, *start)
    assert state["optimizer_history"][-1]["num_updates"] == 5
    assert state["extra_state"]["val_loss"] < 6.5  # bits a token; an untrained model has 7
    check_goes_on(tmp_path, (3, 3, 2, 2))


@pytest.mark.parametrize("name", ["bare", "whole"])
def test_a_pruned_checkpoint_is_resumed(toy_data, pruned, tmp_path, name):
    start = ["--restore-file", str(pruned / f"{name}.pt")]
    if name == "bare":
        start += ["--reset-optimizer", "--reset-lr-scheduler"]
    state = train(toy_data, tmp_path, "--max-update", "45", *COMMON, *BY_LAYER, *start)
    updates = state["optimizer_history"][-1]["num_updates"]
    assert updates == 45
    check_goes_on(tmp_path, (3, 3, 2, 2))


def test_moments_of_what_stays_are_what_they_were(pruned):
    before = torch.load(pruned / "checkpoint_last.pt", weights_only=True)
    after = torch.load(pruned / "whole.pt", weights_only=True)
    names = [name for name in before["model"] if name != "vocabulary_digest"]
    for number, name in enumerate(names):
        if number not in before["last_optimizer_state"]["state"]:
            assert name.endswith("key.bias"), "which have no gradient"
            continue
        old, new = (s["last_optimizer_state"]["state"][number] for s in (before, after))
        weight, rest = before["model"][name], after["model"][name]
        for key in ("exp_avg", "exp_avg_sq"):
            assert new[key].shape == rest.shape, name
            rows = [(weight == row).flatten(1).all(1).nonzero().item() for row in rest] if (
                weight.shape != rest.shape and weight.dim() > 1 and weight.any()
            ) else None  # fmt: skip
            if rows is not None and len(rest) > 1:
                assert torch.equal(new[key], old[key][rows]), name
            elif weight.shape == rest.shape:
                assert torch.equal(new[key], old[key]), name


def test_the_aggregate_of_two_checkpoints_of_one_run_trains_on(toy_data, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    for name in ("bare.pt", "whole.pt"):
        (run / name).unlink(missing_ok=True)
    shutil.copyfile(run / "checkpoint_last.pt", tmp_path / "at40.pt")
    train(toy_data, run, "--max-update", "50", *COMMON)
    words = [str(tmp_path / "at40.pt"), str(run / "checkpoint_last.pt")]
    assert main(["aggregate", *words, "--output", str(tmp_path / "joint.pt")]) == 0
    joint = ["--num-experts", "8", "--top-k", "4"]
    start = ["--finetune-from-model", str(tmp_path / "joint.pt")]
    state = train(toy_data, tmp_path / "on", "--max-update", "5", *COMMON, *joint, *start)
    assert state["extra_state"]["val_loss"] < 6.5
    check_goes_on(tmp_path / "on", (8, 8, 8, 8))


def test_an_upcycled_checkpoint_trains_on(toy_data, tmp_path):
    dense = [*COMMON, "--moe-every", "0"]
    train(toy_data, tmp_path / "dense", "--max-update", "40", *dense)
    model, out = tmp_path / "dense/checkpoint_last.pt", tmp_path / "moe.pt"
    assert main(["upcycle", str(model), "--experts", "4", "--output", str(out)]) == 0
    moe = [*COMMON, "--moe-every", "2"]
    start = ["--finetune-from-model", str(out)]
    state = train(toy_data, tmp_path / "on", "--max-update", "5", *moe, *start)
    assert state["extra_state"]["val_loss"] < 6.5
    check_goes_on(tmp_path / "on", (4, 4))
