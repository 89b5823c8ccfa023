"""The network on any layout of ranks equals one process: loss, norm, gradients, in float64."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from mtmoe.config import DropPolicy, MeshConfig, RouterConfig, TransformerConfig, Zero
from mtmoe.modules.router import router_loss
from mtmoe.modules.transformer import Transformer
from mtmoe.modules.vocabulary_loss import smoothed_nll
from mtmoe.ops.routing import RouterKey
from mtmoe.parallel.gradients import gradient_norm, reduce_gradients
from mtmoe.parallel.mesh import ONE_PROCESS, make_mesh
from mtmoe.parallel.slices import gather_whole, stored_part
from tests.ranks import run_ranks

V, PAD, NUM_UPDATES, RATE = 27, 1, 3, 0.1
NEAR = {"atol": 1e-9, "rtol": 1e-9}


def make_config(routing):
    router = {"rts": {"capacity_factor": 0.8}, "dropless": {"top_k": 2}}[routing]
    return TransformerConfig(
        encoder_layers=2,
        decoder_layers=2,
        embed_dim=16,
        ffn_dim=12,
        shared_ffn_dim=4,
        attention_heads=4,
        dropout=0.0,
        moe_every=2,
        router=RouterConfig(num_experts=4, drop_policy=DropPolicy.random, **router),
    )


def make_model(config, mesh=ONE_PROCESS, zero=Zero.none):
    if mesh.devices is None:
        return Transformer(config, V, PAD, 5).double()
    with torch.device("meta"):
        model = Transformer(config, V, PAD, mesh=mesh).double()
    model.materialise(torch.device("cpu"), 5, zero)
    return model


def batch_of(number, update, is_empty):
    """Uneven batches; an empty one is all padding."""
    generator = torch.Generator().manual_seed(100 * update + number)
    shape = (2 + number % 2, 5 + number)
    source, target, wanted = torch.randint(4, V, (3, *shape), generator=generator)
    source[0, 4:], target[0, 3:], wanted[0, 3:] = PAD, PAD, PAD
    if is_empty:
        wanted[:], target[:, 1:], source[:, 1:] = PAD, PAD, PAD
    return source, target, wanted


def loss_of(model, batch, key):
    source, target, wanted = batch
    output = model(source, target, key)
    real = wanted != PAD
    logits = model.project(output.states[real])
    loss, _ = smoothed_nll(logits, wanted[real], 0.1, model.embedding)
    extra = sum(router_loss(model.config.router, 0.0, r).double() for r in output.routings)
    return loss.sum() + extra


def step(model):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                stored_part(parameter).sub_(RATE * stored_part(parameter.grad))
            parameter.grad = None


def check_layout(sizes, settings):
    routing, zero, deduplicate, num_micro, empty = settings
    config = make_config(routing)
    mesh = make_mesh(MeshConfig(sizes[1], sizes[2], zero, deduplicate))
    whole, ours = make_model(config).train(), make_model(config, mesh, zero).train()
    num_batches = mesh.batch.size * num_micro
    for update in range(NUM_UPDATES):
        losses, found = [], []
        for number in range(num_batches):
            batch = batch_of(number, update, number == empty)
            losses.append(loss_of(whole, batch, RouterKey.of(1, update, number)))
            losses[-1].div(mesh.batch.size).backward()
        for micro in range(num_micro):
            number = micro * mesh.batch.size + mesh.batch.rank
            batch = batch_of(number, update, number == empty)
            found.append(loss_of(ours, batch, RouterKey.of(1, update, number)))
            found[-1].backward()
            assert_close(found[-1], losses[number], **NEAR)
        reduce_gradients(ours.parameters(), mesh)
        norm = gradient_norm(whole.parameters(), ONE_PROCESS)
        assert_close(gradient_norm(ours.parameters(), mesh), norm, **NEAR)
        compare(ours, whole, lambda p: p.grad)
        step(whole), step(ours)
        compare(ours, whole, lambda p: p)


def compare(ours, whole, read):
    theirs = dict(whole.named_parameters())
    for name, parameter in ours.named_parameters():
        if read(theirs[name]) is None:  # keys' biases
            assert read(parameter) is None or not stored_part(read(parameter)).any()
            continue
        found = gather_whole(stored_part(read(parameter)), parameter)
        expected = read(theirs[name])
        assert_close(
            found, expected.detach(), **NEAR, msg=lambda text, name=name: f"{name}: {text}"
        )


LAYOUTS = [(2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 1), (1, 2, 2), (2, 1, 2)]
FEW = [  # each layout once, each setting several times
    ((2, 1, 1), ("rts", Zero.parameters, False, 1, None)),
    ((1, 2, 1), ("dropless", Zero.gradients, False, 2, 1)),
    ((1, 1, 2), ("rts", Zero.none, True, 1, 0)),
    ((2, 2, 1), ("dropless", Zero.parameters, False, 1, 2)),
    ((1, 2, 2), ("rts", Zero.gradients, True, 2, None)),
    ((2, 1, 2), ("dropless", Zero.none, False, 1, None)),
]


def run_layout(sizes, settings):
    run_ranks(check_layout, sizes[0] * sizes[1] * sizes[2], sizes, settings)


@pytest.mark.parametrize(("sizes", "settings"), FEW)
def test_layout_equals_one_process(sizes, settings):
    run_layout(sizes, settings)


@pytest.mark.long
@pytest.mark.parametrize("zero", list(Zero))
@pytest.mark.parametrize("sizes", LAYOUTS)
def test_every_layout_equals_one_process(sizes, zero):
    run_layout(sizes, ("rts", zero, True, 1, None))
    run_layout(sizes, ("dropless", zero, False, 2, 1))


@pytest.mark.long
def test_eight_ranks_equal_one_process():
    run_layout((2, 2, 2), ("rts", Zero.parameters, True, 1, None))
