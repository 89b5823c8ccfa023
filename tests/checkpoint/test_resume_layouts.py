"""Saved on one layout, resumed on another: it goes on like a run that never stopped."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.distributed as dist
from torch.testing import assert_close

from mtmoe.checkpoint.gathered import gather_adam, gather_weights, load_weights
from mtmoe.checkpoint.shard_folder import ShardFolder, StoredAdam
from mtmoe.checkpoint.sharded import model_tensors, read_weights, split_adam, write_folder
from mtmoe.config import (
    AdamConfig,
    DropPolicy,
    MeshConfig,
    RouterConfig,
    StateLocation,
    TransformerConfig,
    Zero,
)
from mtmoe.parallel.gradients import gradient_norm, reduce_gradients
from mtmoe.parallel.mesh import make_mesh
from mtmoe.parallel.slices import gather_whole, stored_part
from mtmoe.report.layout_check import Trainee
from tests.ranks import run_ranks

NEAR = {"atol": 1e-9, "rtol": 1e-9}
NUM_BATCHES, STOP, END = 4, 2, 7  # batches of an update; updates before and after the save
FORMATS = ("gathered", "sharded")
CONFIG = TransformerConfig(
    encoder_layers=2,
    decoder_layers=2,
    embed_dim=16,
    ffn_dim=12,
    attention_heads=4,
    dropout=0.0,
    max_positions=32,
    router=RouterConfig(
        num_experts=4, capacity_factor=1.0, drop_policy=DropPolicy.random, bias_update_rate=0.001
    ),
)


def make_trainee(layout):
    sizes, zero, location = layout
    mesh = make_mesh(MeshConfig(sizes[1], sizes[2], zero))
    return Trainee.make(CONFIG, AdamConfig(state_location=location), mesh, zero)


def update(trainee, number):
    """All batches of an update, shared out among the ranks; the gradient's norm."""
    axis = trainee.mesh.batch
    trainee.optimizer.zero_grad()
    for batch in range(axis.rank, NUM_BATCHES, axis.size):
        trainee._loss(batch, number).backward()
    reduce_gradients(trainee.model.parameters(), trainee.mesh)
    divisor = NUM_BATCHES / axis.size
    norm = gradient_norm(trainee.model.parameters(), trainee.mesh) / divisor
    trainee.optimizer.step(divisor=torch.tensor(divisor))
    return norm


def save(trainee, folder):
    """In both formats; every rank calls it."""
    weights, state = trainee.model.state_dict(), trainee.optimizer.state_dict()
    small, averages = split_adam(state)
    write_folder(folder / "shards", {**model_tensors(weights), **averages})
    whole = gather_adam(state, list(trainee.model.parameters()))
    saved = {"model": gather_weights(trainee.model), "optimizer": whole, "small": small}
    if dist.get_rank() == 0:
        torch.save(saved, folder / "whole.pt")
    dist.barrier()


def load(trainee, folder, kind):
    saved = torch.load(folder / "whole.pt", weights_only=True)
    if kind == "gathered":
        load_weights(trainee.model, saved["model"])
        trainee.optimizer.load_state_dict(saved["optimizer"])
        return
    shards = ShardFolder(folder / "shards")
    read_weights(trainee.model, shards)
    likes = list(trainee.model.parameters())
    state = StoredAdam(shards, saved["small"]["state"], likes)
    trainee.optimizer.load_state_dict({**saved["small"], "state": state})


def check_run(trainee, expected):
    for number in range(STOP, END):
        assert_close(update(trainee, number), expected["norms"][number], **NEAR)
    for name, parameter in trainee.model.named_parameters():
        found = gather_whole(stored_part(parameter), parameter).detach()
        assert_close(found, expected["weights"][name], **NEAR)


def run_unstopped(path):
    trainee = make_trainee(((1, 1, 1), Zero.none, StateLocation.device))
    norms = [update(trainee, number) for number in range(END)]
    weights = {name: p.detach() for name, p in trainee.model.named_parameters()}
    torch.save({"norms": norms, "weights": weights}, path)


def run_and_save(layout, folder):
    trainee = make_trainee(layout)
    for number in range(STOP):
        update(trainee, number)
    save(trainee, folder)


def resume_all(layout, folders, kinds, expected):
    for folder, kind in itertools.product(folders, kinds):
        trainee = make_trainee(layout)
        load(trainee, folder, kind)
        check_run(trainee, torch.load(expected, weights_only=True))


SIZES = [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 1), (1, 2, 2), (2, 1, 2)]
DEVICE, HOST = StateLocation.device, StateLocation.host
FEW = [  # each layout is saved once and resumed once, each setting several times
    ((2, 1, 1), Zero.parameters, DEVICE),
    ((1, 2, 1), Zero.none, HOST),
    ((2, 1, 2), Zero.gradients, DEVICE),
    ((1, 1, 1), Zero.none, DEVICE),
    ((2, 2, 1), Zero.parameters, DEVICE),
    ((1, 1, 2), Zero.none, DEVICE),
    ((1, 2, 2), Zero.gradients, HOST),
]


def folder_of(root, layout):
    folder = root / "-".join(map(str, (*layout[0], layout[1], layout[2])))
    if not folder.exists():
        folder.mkdir()
        run_ranks(run_and_save, num_ranks(layout), layout, folder)
    return folder


def num_ranks(layout):
    data, expert, tensor = layout[0]
    return data * expert * tensor


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Of saved runs, and of the one that never stopped."""
    folder = tmp_path_factory.mktemp("resume")
    run_ranks(run_unstopped, 1, folder / "expected.pt")
    return folder


@pytest.mark.parametrize("number", range(len(FEW)))
def test_the_next_layout_goes_on_as_if_never_stopped(root, number):
    saved, resumed = FEW[number], FEW[(number + 1) % len(FEW)]
    folder = folder_of(root, saved)
    run_ranks(resume_all, num_ranks(resumed), resumed, [folder], FORMATS, root / "expected.pt")


ALL = [
    (sizes, zero, DEVICE)
    for sizes in SIZES
    for zero in Zero
    if sizes != (1, 1, 1) or zero is Zero.none
]


@pytest.mark.long
@pytest.mark.parametrize("resumed", ALL, ids=str)
def test_every_layout_resumes_every_other_one(root, resumed):
    folders = [folder_of(root, saved) for saved in ALL]
    expected = root / "expected.pt"
    run_ranks(resume_all, num_ranks(resumed), resumed, folders, FORMATS, expected, limit=600)
