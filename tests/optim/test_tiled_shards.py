"""Each rank steps its own shard of DTensors: with FSDP2, whatever the tile, as one process does."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo  # FSDP2 imports it, which takes seconds: before ranks fork
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from mtmoe.config import AdamConfig, StateLocation
from mtmoe.optim.tiled_adam import TiledAdam
from tests.ranks import run_ranks

OPTIONS = {"lr": 0.01, "weight_decay": 0.1}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(37, 61), nn.ReLU(), nn.Linear(61, 5))


def train(model, optimizer, updates):
    for update in updates:
        x = torch.randn(8, 37, generator=torch.Generator().manual_seed(update))
        optimizer.zero_grad()
        (model(x) ** 2).sum().backward()
        optimizer.step()


def full(model):
    return [p.full_tensor() if isinstance(p, DTensor) else p.detach() for p in model.parameters()]


def check_fsdp(location):
    whole = network()
    train(whole, torch.optim.AdamW(whole.parameters(), fused=True, **OPTIONS), range(4))
    config = AdamConfig(tile_size=1000, state_location=location)
    options = StateDictOptions(full_state_dict=True)
    model = fully_shard(network())
    optimizer = TiledAdam(model.parameters(), config, **OPTIONS)
    train(model, optimizer, range(2))
    state = optimizer.state[next(model.parameters())]["exp_avg"]
    assert isinstance(state, DTensor)
    assert state.placements == (Shard(0),)
    saved = get_optimizer_state_dict(model, optimizer, options=options)
    assert saved["state"]["0.weight"]["exp_avg"].shape == (61, 37)
    optimizer.zero_grad()  # DCP makes state to load into by a step, if there are no gradients
    fresh = TiledAdam(model.parameters(), config, **OPTIONS)
    set_optimizer_state_dict(model, fresh, saved, options=options)
    train(model, fresh, range(2, 4))
    for mine, expected in zip(full(model), full(whole), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


SETTINGS = [
    {"tile_size": tile, "state_location": location}
    for tile in (1000, 1001, 2048, 1 << 20)
    for location in StateLocation
]


def step_thrice(parameter, **settings):
    optimizer = TiledAdam([parameter], AdamConfig(master_weights=True, **settings), **OPTIONS)
    for _ in range(3):
        optimizer.step()


def check_bit_equal():
    """Uneven shards, gradients given: no sum over ranks that could be rounded otherwise."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    generator = torch.Generator().manual_seed(3)
    weight, gradient = torch.randn(2, 61, 67, generator=generator).bfloat16()
    plain = nn.Parameter(weight.clone())
    plain.grad = gradient
    step_thrice(plain)
    for settings in SETTINGS:
        parameter = nn.Parameter(distribute_tensor(weight, mesh, [Shard(0)]))
        parameter.grad = distribute_tensor(gradient, mesh, [Shard(0)])
        step_thrice(parameter, **settings)
        assert torch.equal(parameter.full_tensor().detach(), plain.detach()), settings


@pytest.mark.parametrize("location", list(StateLocation))
def test_fsdp2_trains_and_resumes_as_one_process(location):
    run_ranks(check_fsdp, 2, location)


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_tiles_of_shards_equal_whole_tensors(num_ranks):
    run_ranks(check_bit_equal, num_ranks)
