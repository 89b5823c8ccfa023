"""The network trained on a layout of ranks, beside one process that takes their micro-batches."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch._dynamo  # checkpointing and FSDP2 import it, which takes seconds: before ranks fork
from torch import Tensor
from torch.testing import assert_close

from mtmoe.config import (
    CheckpointActivations,
    DropPolicy,
    MeshConfig,
    RouterConfig,
    TransformerConfig,
    Zero,
)
from mtmoe.modules.router import router_loss
from mtmoe.modules.transformer import Transformer
from mtmoe.modules.vocabulary_loss import smoothed_nll
from mtmoe.ops.routing import RouterKey
from mtmoe.parallel.gradients import gradient_norm, reduce_gradients
from mtmoe.parallel.mesh import ONE_PROCESS, Mesh, make_mesh
from mtmoe.parallel.slices import slices_of, stored_part
from tests.ranks import run_ranks

V, PAD, SEED, RATE = 27, 1, 5, 0.1
NEAR = {"atol": 1e-9, "rtol": 1e-9}
Sizes = tuple[int, int, int]  # of data, expert, tensor
LAYOUTS: list[Sizes] = [(2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 1), (1, 2, 2), (2, 1, 2)]
ROUTINGS = {"rts": {"capacity_factor": 0.8}, "dropless": {"top_k": 2}}


@dataclass(frozen=True)
class Cell:
    """One combination of what must not change the result."""

    sizes: Sizes
    zero: Zero
    deduplicate: bool
    checkpoint: CheckpointActivations
    routing: str


@dataclass(frozen=True)
class Trajectory:
    """What one process computed; gradients and parameters are those of the last update."""

    losses: list[list[Tensor]]  # by update and number of the batch
    norms: list[Tensor]
    gradients: dict[str, Tensor]
    parameters: dict[str, Tensor]


def config_of(routing: str, checkpoint: CheckpointActivations) -> TransformerConfig:
    router = RouterConfig(num_experts=4, drop_policy=DropPolicy.random, **ROUTINGS[routing])
    return TransformerConfig(
        2, 2, 16, 12, shared_ffn_dim=4, attention_heads=4, dropout=0.0, moe_every=2,
        checkpoint_activations=checkpoint, router=router,
    )  # fmt: skip


def make_model(
    config: TransformerConfig, mesh: Mesh = ONE_PROCESS, zero: Zero = Zero.none
) -> Transformer:
    if mesh.devices is None:
        return Transformer(config, V, PAD, SEED).double().train()
    with torch.device("meta"):
        model = Transformer(config, V, PAD, mesh=mesh).double()
    model.materialise(torch.device("cpu"), SEED, zero)
    return model.train()


def num_micro(update: int) -> int:
    """Micro-batches of each rank: 1 and 2 in turns (update-freq)."""
    return 1 + update % 2


def batch_of(number: int, update: int, num_batches: int) -> tuple[Tensor, Tensor, Tensor]:
    """Uneven batches; now and then one without sentences, or with padding only."""
    generator = torch.Generator().manual_seed(100 * update + number)
    shape = (2 + number % 2, 5 + number)
    source, target, wanted = torch.randint(4, V, (3, *shape), generator=generator)
    source[0, 4:], target[0, 3:], wanted[0, 3:] = PAD, PAD, PAD
    if num_batches == 1 or (number + update) % 5:
        return source, target, wanted
    if number % 2:
        wanted[:], target[:, 1:], source[:, 1:] = PAD, PAD, PAD
        return source, target, wanted
    return source[:0], target[:0], wanted[:0]


def loss_of(model: Transformer, number: int, update: int, num_batches: int) -> Tensor:
    source, target, wanted = batch_of(number, update, num_batches)
    output = model(source, target, RouterKey.of(1, update, number))
    real = wanted != PAD
    logits = model.project(output.states[real])
    loss, _ = smoothed_nll(logits, wanted[real], 0.1, model.embedding)
    extra = sum(router_loss(model.config.router, 0.0, r).double() for r in output.routings)
    return loss.sum() + extra


@torch.no_grad()
def descend(model: Transformer) -> None:
    """Plain gradient descent: unlike Adam, it sees the scale of each gradient."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            stored_part(parameter).sub_(RATE * stored_part(parameter.grad))


@functools.cache
def train_alone(routing: str, num_ranks: int, num_updates: int) -> Trajectory:
    """One process takes the batches of `num_ranks` ranks as micro-batches."""
    model = make_model(config_of(routing, CheckpointActivations.none), ONE_PROCESS, Zero.none)
    losses, norms = [], []
    for update in range(num_updates):
        model.zero_grad()
        num_batches = num_ranks * num_micro(update)
        found = [loss_of(model, n, update, num_batches) for n in range(num_batches)]
        for loss in found:
            loss.div(num_ranks).backward()
        losses.append([loss.detach() for loss in found])
        norms.append(gradient_norm(model.parameters(), ONE_PROCESS))
        descend(model)
    named = dict(model.named_parameters())
    zero = {name: torch.zeros_like(p) for name, p in named.items() if p.grad is None}
    gradients = {name: p.grad for name, p in named.items() if p.grad is not None} | zero
    return Trajectory(losses, norms, gradients, {n: p.detach() for n, p in named.items()})


def check_cell(cell: Cell, mesh: Mesh, expected: Trajectory) -> None:
    """Train on this layout; losses and norms of each update, then all numbers, must be equal."""
    mesh = dataclasses.replace(mesh, deduplicate_tokens=cell.deduplicate)
    model = make_model(config_of(cell.routing, cell.checkpoint), mesh, cell.zero)
    for update, (losses, norm) in enumerate(zip(expected.losses, expected.norms, strict=True)):
        model.zero_grad()
        for micro in range(num_micro(update)):
            number = micro * mesh.batch.size + mesh.batch.rank
            loss = loss_of(model, number, update, len(losses))
            assert_close(loss.detach(), losses[number], **NEAR, msg=f"loss of update {update}")
            loss.backward()
        reduce_gradients(model.parameters(), mesh)
        found = gradient_norm(model.parameters(), mesh)
        assert_close(found, norm, **NEAR, msg=f"norm of update {update}: {found}, not {norm}")
        descend(model)
    for name, parameter in model.named_parameters():
        own = slices_of(parameter)
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert_near(f"gradient of {name}", gradient, expected.gradients[name][own])
        assert_near(name, parameter, expected.parameters[name][own])


def assert_near(name: str, found: Tensor, expected: Tensor) -> None:
    assert_close(stored_part(found), expected, **NEAR, msg=lambda text: f"{name}: {text}")


def check_cells(cells: Sequence[Cell], expected: Sequence[Trajectory]) -> None:
    """On each rank: all cells of one layout."""
    _, expert, tensor = cells[0].sizes
    mesh = make_mesh(MeshConfig(expert, tensor))
    for cell, trajectory in zip(cells, expected, strict=True):
        try:
            check_cell(cell, mesh, trajectory)
        except BaseException as error:
            error.add_note(f"in {cell}")
            raise


def run_cells(cells: Sequence[Cell], num_updates: int = 10) -> None:
    """One start of ranks for all cells, which are of one layout; starting takes longest."""
    data, expert, tensor = sizes = cells[0].sizes
    assert {cell.sizes for cell in cells} == {sizes}
    expected = [train_alone(cell.routing, data * expert, num_updates) for cell in cells]
    limit = 120 + 20 * len(cells)
    run_ranks(check_cells, data * expert * tensor, cells, expected, limit=limit)


def every_cell(sizes: Sizes) -> list[Cell]:
    """The product of all settings on one layout."""
    settings = product(Zero, (False, True), CheckpointActivations, ROUTINGS)
    return [Cell(sizes, *values) for values in settings]


def covering_cells() -> list[Cell]:
    """18 cells in which each value of each setting meets each value of each other one."""
    zeros, checkpoints, routings = list(Zero), list(CheckpointActivations), list(ROUTINGS)
    return [
        Cell(
            sizes,
            zero,
            bool((n + z) % 2),
            checkpoints[(n + z) % 3],
            routings[(n // 2 + z) % 2],
        )
        for n, sizes in enumerate(LAYOUTS)
        for z, zero in enumerate(zeros)
    ]


def pairs_of(cells: Iterable[Cell]) -> set[tuple[int, object, int, object]]:
    """Each two values that meet in a cell, with the numbers of their settings."""
    found = set()
    for cell in cells:
        values = [getattr(cell, item.name) for item in dataclasses.fields(cell)]
        for first, second in product(range(len(values)), repeat=2):
            if first < second:
                found.add((first, values[first], second, values[second]))
    return found
