"""A step in tiles equals the step of whole tensors bit by bit, in the memory of one tile."""

from __future__ import annotations

import pytest
import torch
from fairseq.optim.adam import Adam as FairseqOwnAdam

from mtmoe.config import AdamConfig, AdamKind, StateLocation
from mtmoe.errors import CheckpointError, ConfigError
from mtmoe.optim.tiled_adam import TiledAdam
from tests.tensor_memory import TensorMemory

SHAPES = ((70, 150), (33,), (9, 401), (), (5, 0))  # of 10500, 33, 3609, 1 and 0 elements
OPTIONS = {"lr": 0.01, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.1}
DEVICE, HOST = StateLocation
TILES = [1000, 1001, 4096, 1 << 24]


def parameters_of(dtype):
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in SHAPES]


def set_gradients(parameters, update):
    """All but the second parameter have a gradient in every update."""
    generator = torch.Generator().manual_seed(update + 1)
    for number, parameter in enumerate(parameters):
        gradient = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        parameter.grad = None if number == 1 and update % 2 else gradient


def run(optimizer, parameters, updates=range(5), divisor=None):
    for update in updates:
        set_gradients(parameters, update)
        optimizer.step(*(() if divisor is None else (None, divisor)))
    return [p.detach().clone() for p in parameters]


def tiled(dtype, **settings):
    parameters = parameters_of(dtype)
    optimizer = TiledAdam(parameters, AdamConfig(**settings), **OPTIONS)
    return run(optimizer, parameters), optimizer


def assert_equal(found, expected):
    for number, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert torch.equal(a, b), number


def whole(dtype, kind, has_master=True):
    """PyTorch's step of whole tensors; half-precision ones have a float32 copy that is stepped."""
    parameters = parameters_of(dtype)
    masters = [torch.nn.Parameter(p.detach().to(torch.promote_types(dtype, torch.float32)))
               for p in parameters]  # fmt: skip
    make = torch.optim.AdamW if kind is AdamKind.adamw else torch.optim.Adam
    optimizer = make(masters, fused=True, **OPTIONS)
    for update in range(5):
        set_gradients(parameters, update)
        for parameter, master in zip(parameters, masters, strict=True):
            grad = parameter.grad
            master.grad = None if grad is None else grad.to(master.dtype)
        optimizer.step()
        for parameter, master in zip(parameters, masters, strict=True):
            parameter.data.copy_(master)
            if not has_master:  # no master weights: what is rounded is lost
                master.data.copy_(parameter)
    return [p.detach() for p in parameters]


@pytest.mark.parametrize("location", [DEVICE, HOST])
@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("kind", list(AdamKind))
def test_float32_steps_are_those_of_pytorch(kind, tile, location):
    settings = {"adam_kind": kind, "tile_size": tile, "state_location": location}
    assert_equal(tiled(torch.float32, **settings)[0], whole(torch.float32, kind))


@pytest.mark.parametrize("location", [DEVICE, HOST])
@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("has_master", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_steps_are_those_of_float32_copies(dtype, has_master, tile, location):
    settings = {"tile_size": tile, "state_location": location, "master_weights": has_master}
    found, optimizer = tiled(dtype, **settings)
    assert_equal(found, whole(dtype, AdamKind.adamw, has_master))
    for state in optimizer.state.values():
        assert ("master" in state) == has_master
        assert {t.dtype for t in state.values()} == {torch.float32}


def test_float64_is_not_rounded():
    found, optimizer = tiled(torch.float64, state_location=HOST, tile_size=1000)
    assert_equal(found, whole(torch.float64, AdamKind.adamw))
    assert optimizer.state[optimizer.param_groups[0]["params"][0]]["exp_avg"].dtype == torch.float64


def test_half_precision_weights_learn_from_steps_smaller_than_their_last_bit():
    for has_master, expected in ((True, 1.0 - 100 * 1e-4), (False, 1.0)):
        weight = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
        config = AdamConfig(master_weights=has_master)
        optimizer = TiledAdam([weight], config, lr=1e-4)
        for _ in range(100):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        assert weight.tolist() == pytest.approx([expected] * 3, abs=4e-3)


def test_gradients_are_divided():
    parameters = parameters_of(torch.bfloat16)
    optimizer = TiledAdam(parameters, AdamConfig(tile_size=1000), **OPTIONS)
    found = run(optimizer, parameters, range(1), divisor=torch.tensor(0.5))
    first = optimizer.state[parameters[0]]["exp_avg"]
    set_gradients(parameters, 0)
    torch.testing.assert_close(first, 0.2 * parameters[0].grad.float())
    assert len(found) == len(SHAPES)


@pytest.mark.parametrize("tile", [1000, 4096])
@pytest.mark.parametrize("location", [DEVICE, HOST])
@pytest.mark.parametrize(
    ("dtype", "has_master"),
    [(torch.float32, False), (torch.bfloat16, True), (torch.bfloat16, False)],
)
def test_a_step_holds_no_more_than_one_tile(dtype, has_master, location, tile):
    parameters = parameters_of(dtype)
    config = AdamConfig(tile_size=tile, state_location=location, master_weights=has_master)
    optimizer = TiledAdam(parameters, config, **OPTIONS)
    run(optimizer, parameters, range(2))  # makes the state
    set_gradients(parameters, 2)
    with TensorMemory() as memory:
        optimizer.step()
    is_in_place = dtype == torch.float32 and location is DEVICE
    assert memory.peak <= (0 if is_in_place else 4 * tile)
    assert memory.live == 0


def test_without_tiles_a_step_holds_copies_of_all_gradients():
    parameters = parameters_of(torch.bfloat16)
    optimizer = TiledAdam(parameters, AdamConfig(master_weights=True), **OPTIONS)
    run(optimizer, parameters, range(2))
    set_gradients(parameters, 2)
    with TensorMemory() as memory:
        optimizer.step()
    assert memory.peak == 4 * sum(p.numel() for p in parameters)


def resumed(make_first, make_second):
    parameters = parameters_of(torch.float32)
    optimizer = make_first(parameters)
    run(optimizer, parameters, range(3))
    saved = optimizer.state_dict()
    optimizer = make_second(parameters)
    optimizer.load_state_dict(saved)
    return run(optimizer, parameters, range(3, 5)), optimizer


def ours(parameters):
    return TiledAdam(parameters, AdamConfig(state_location=HOST, tile_size=1000), **OPTIONS)


def pytorchs(parameters):
    return torch.optim.AdamW(parameters, fused=True, **OPTIONS)


@pytest.mark.parametrize("first", [ours, pytorchs])
def test_checkpoints_resume_bit_exactly_those_of_pytorch_too(first):
    found, _ = resumed(first, ours)
    assert_equal(found, whole(torch.float32, AdamKind.adamw))


def test_pytorch_resumes_our_checkpoints():
    found, optimizer = resumed(ours, pytorchs)  # which then takes its unfused step
    assert optimizer.param_groups[0]["decoupled_weight_decay"]
    torch.testing.assert_close(found, whole(torch.float32, AdamKind.adamw), rtol=1e-5, atol=1e-6)


def test_checkpoints_of_fairseqs_adam_resume():
    found, optimizer = resumed(lambda p: FairseqOwnAdam(p, **OPTIONS), ours)
    assert optimizer.state[optimizer.param_groups[0]["params"][0]]["step"].item() == 5
    # it does not correct epsilon for the bias, which tells where gradients are tiny
    torch.testing.assert_close(found, whole(torch.float32, AdamKind.adamw), rtol=1e-4, atol=1e-4)


def test_options_are_the_saved_ones():
    saved = ours(parameters_of(torch.float32)).state_dict()
    optimizer = TiledAdam(parameters_of(torch.float32), AdamConfig(adam_kind=AdamKind.adam))
    optimizer.load_state_dict(saved)
    assert {k: optimizer.param_groups[0][k] for k in OPTIONS} == OPTIONS
    assert optimizer.param_groups[0]["decoupled_weight_decay"]


@pytest.mark.parametrize("location", [DEVICE, HOST])
def test_half_precision_resumes_bit_exactly(location):
    settings = {"master_weights": True, "state_location": location, "tile_size": 1000}
    expected, _ = tiled(torch.bfloat16, **settings)
    parameters = parameters_of(torch.bfloat16)
    optimizer = TiledAdam(parameters, AdamConfig(**settings), **OPTIONS)
    run(optimizer, parameters, range(2))
    saved = optimizer.state_dict()
    optimizer = TiledAdam(parameters, AdamConfig(**settings), **OPTIONS)
    optimizer.load_state_dict(saved)
    assert_equal(run(optimizer, parameters, range(2, 5)), expected)


def test_master_weights_start_from_the_weights_of_a_checkpoint_without_them():
    parameters = parameters_of(torch.bfloat16)
    plain = TiledAdam(parameters, AdamConfig(), **OPTIONS)
    run(plain, parameters, range(2))
    optimizer = TiledAdam(parameters, AdamConfig(master_weights=True), **OPTIONS)
    optimizer.load_state_dict(plain.state_dict())
    set_gradients(parameters, 2)
    before = parameters[0].detach().float()
    optimizer.step()
    change = optimizer.state[parameters[0]]["master"] - before
    assert 0 < change.abs().max() < 0.02


def test_a_state_of_other_parameters_is_refused():
    optimizer = TiledAdam(parameters_of(torch.float32), AdamConfig())
    run(optimizer, optimizer.param_groups[0]["params"], range(1))
    saved = optimizer.state_dict()
    fewer = TiledAdam(parameters_of(torch.float32)[:2], AdamConfig())
    with pytest.raises(CheckpointError, match=r"must be of \[2\] parameters in groups, but is of"):
        fewer.load_state_dict(saved)
    other = TiledAdam([torch.nn.Parameter(torch.ones(7)) for _ in SHAPES], AdamConfig())
    with pytest.raises(
        CheckpointError, match=r"exp_avg must be of shape \(7,\), but is of \(70, 1"
    ):
        other.load_state_dict(saved)


def test_tiny_tiles_are_refused():
    with pytest.raises(ConfigError, match="tile_size must be at least 1000, but is 999"):
        AdamConfig(tile_size=999)


def test_a_gradient_may_lie_otherwise_in_memory():
    found = []
    for is_transposed in (False, True):
        weight = torch.nn.Parameter(torch.ones(3, 4))
        weight.grad = torch.arange(12.0).view(3, 4)
        if is_transposed:
            weight.grad = weight.grad.t().contiguous().t()
        TiledAdam([weight], AdamConfig(), lr=0.1).step()
        found.append(weight.detach())
    assert torch.equal(*found)


def test_a_closure_is_called_with_gradients():
    weight = torch.nn.Parameter(torch.ones(3))

    def closure():
        loss = (weight**2).sum()
        loss.backward()
        return loss

    assert TiledAdam([weight], AdamConfig(), lr=0.1).step(closure).item() == 3
    assert weight.tolist() == pytest.approx([0.9] * 3)
