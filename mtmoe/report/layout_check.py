"""Whether a layout of ranks trains as one process does: the examination of `mtmoe doctor`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mtmoe.checkpoint.gathered import gather_adam, gather_weights, load_weights
from mtmoe.config import AdamConfig, MeshConfig, TransformerConfig, Zero
from mtmoe.data.vocabulary import EOS, PAD
from mtmoe.modules.router import router_loss
from mtmoe.modules.transformer import Transformer
from mtmoe.modules.vocabulary_loss import smoothed_nll
from mtmoe.ops.routing import RouterKey
from mtmoe.optim.tiled_adam import TiledAdam
from mtmoe.parallel.collectives import Traffic, count_traffic
from mtmoe.parallel.engine_traffic import EngineTraffic
from mtmoe.parallel.gradients import gradient_norm, reduce_gradients
from mtmoe.parallel.mesh import ONE_PROCESS, Mesh
from mtmoe.parallel.slices import gather_whole, stored_part

VOCABULARY, NUM_LANGUAGES, SEED = 53, 3, 7
RATE, SMOOTHING = 1e-2, 0.1


@dataclass(frozen=True)
class Trainee:
    """A model with its optimizer, on a layout."""

    model: Transformer
    optimizer: TiledAdam
    mesh: Mesh

    @staticmethod
    def make(config: TransformerConfig, adam: AdamConfig, mesh: Mesh, zero: Zero) -> Trainee:
        """In float64, with first weights that depend on names only."""
        if mesh.devices is None:
            model = Transformer(config, VOCABULARY, PAD, SEED, NUM_LANGUAGES).double()
        else:
            with torch.device("meta"):
                model = Transformer(config, VOCABULARY, PAD, None, NUM_LANGUAGES, mesh).double()
            model.materialise(torch.device(mesh.devices.device_type), SEED, zero)
        return Trainee(model.train(), TiledAdam(model.parameters(), adam, lr=RATE), mesh)

    def update(self, batches: list[int], number: int) -> dict[str, Tensor]:
        """One update of the given batches; returns loss and norm, float64."""
        self.optimizer.zero_grad()
        losses = [self._loss(batch, number) for batch in batches]
        for loss in losses:
            loss.backward()  # type: ignore[no-untyped-call]
        reduce_gradients(self.model.parameters(), self.mesh)
        norm = gradient_norm(self.model.parameters(), self.mesh)
        device = next(self.model.parameters()).device
        divisor = float(len(batches)) if self.is_alone else 1.0
        self.optimizer.step(divisor=torch.full((), divisor, device=device))
        mean = torch.stack([loss.detach() for loss in losses]).mean()
        if self.mesh.batch.size > 1:
            dist.all_reduce(mean, group=self.mesh.batch.group)
            mean = mean / self.mesh.batch.size
        return {"loss": mean, "gradient norm": norm / divisor}

    @property
    def is_alone(self) -> bool:
        """Whether it takes all batches itself."""
        return self.mesh.devices is None

    def _loss(self, batch: int, number: int) -> Tensor:
        device = self.model.positions.device  # parameters may be in host memory
        source, target, wanted = (ids.to(device) for ids in make_batch(batch, number))
        output = self.model(source, target, RouterKey.of(SEED, number, batch))
        real = wanted != PAD
        logits = self.model.project(output.states[real])
        loss, _ = smoothed_nll(logits, wanted[real], SMOOTHING, self.model.embedding)
        config = self.model.config
        extra = (router_loss(config.router, config.gate_loss_weight, r) for r in output.routings)
        return sum((loss_.double() for loss_ in extra), loss.sum())


def make_batch(batch: int, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Source, target and what it is to predict, (B, S) int64 each: uneven, padded on the right."""
    generator = torch.Generator().manual_seed(1000 * number + batch)
    shape = (3 + batch % 2, 6 + batch % 3)
    high = VOCABULARY - NUM_LANGUAGES
    ids = torch.randint(EOS + 2, high, (3, *shape), generator=generator)
    ids[0, :, :2] = torch.randint(high, VOCABULARY, (shape[0], 2), generator=generator)
    ids[0, 0, 4:], ids[1, 0, 3:], ids[2, 0, 3:] = PAD, PAD, PAD
    return ids[0], ids[1], ids[2]


def scale_down(config: TransformerConfig, mesh: MeshConfig) -> TransformerConfig:
    """The same kind of model, small: few layers, narrow, no dropout (each layout draws its own)."""
    tensor, expert = mesh.tensor_parallel_size, mesh.expert_parallel_size
    layers = 2 * max(config.moe_every, 1)
    heads = 2 * tensor
    owners = expert * (tensor if mesh.whole_experts else 1)
    num_experts = max(2, -(-config.router.top_k // owners)) * owners
    router = dataclasses.replace(config.router, num_experts=num_experts)
    return dataclasses.replace(
        config,
        encoder_layers=min(config.encoder_layers, layers),
        decoder_layers=min(config.decoder_layers, layers),
        embed_dim=8 * heads,
        ffn_dim=12 * tensor,
        shared_ffn_dim=8 * tensor if config.shared_ffn_dim else 0,
        attention_heads=heads,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        max_positions=32,
        experts_by_layer="",
        router=router,
    )


def examine(
    config: TransformerConfig, adam: AdamConfig, mesh: Mesh, zero: Zero, num_updates: int
) -> tuple[dict[str, float], Traffic]:
    """Train on the layout and on one process; every rank must call it.

    Args:
        num_updates: at least 1; one more follows after saving and reloading.

    Returns:
        The largest difference of each kind, and what this rank sent in one update.
    """
    ours = Trainee.make(config, adam, mesh, zero)
    whole = Trainee.make(config, adam, ONE_PROCESS, Zero.none)
    worst: dict[str, float] = {}
    for number in range(num_updates):
        traffic = _compare(worst, ours, whole, number)
    again = _reload(ours, config, adam, zero)
    after: dict[str, float] = {}
    _compare(after, again, whole, num_updates)
    worst["step after save and reload"] = max(after.values())
    return worst, traffic


def _compare(worst: dict[str, float], ours: Trainee, whole: Trainee, number: int) -> Traffic:
    """One update on both sides; raises the differences in `worst` where they grew.

    Returns:
        What this rank sent in the layout's update.
    """
    axis = ours.mesh.batch
    with count_traffic() as traffic, EngineTraffic(traffic):
        found = ours.update([axis.rank], number)
    expected = whole.update(list(range(axis.size)), number)
    differences = {name: _difference(found[name], expected[name]) for name in found}
    differences["parameters"] = max(_parameter_differences(ours, whole))
    for name, value in differences.items():
        worst[name] = max(worst.get(name, 0.0), value)
    return traffic


def _parameter_differences(ours: Trainee, whole: Trainee) -> Iterator[float]:
    theirs = dict(whole.model.named_parameters())
    for name, parameter in ours.model.named_parameters():
        found = gather_whole(stored_part(parameter), parameter)
        yield _difference(found, theirs[name].detach())


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest, relative to 1 or to the largest expected number if that is above 1."""
    scale = max(1.0, float(expected.abs().max()))
    worst = float((found.cpu().double() - expected.cpu().double()).abs().max()) / scale
    return worst if worst == worst else float("inf")


def _reload(trainee: Trainee, config: TransformerConfig, adam: AdamConfig, zero: Zero) -> Trainee:
    """A new trainee with the weights and the optimizer state that rank 0 would save."""
    parameters = list(trainee.model.parameters())
    saved: list[Any] = [
        gather_weights(trainee.model),
        gather_adam(trainee.optimizer.state_dict(), parameters),
    ]
    dist.broadcast_object_list(saved, src=0)
    again = Trainee.make(config, adam, trainee.mesh, zero)
    load_weights(again.model, saved[0])
    again.optimizer.load_state_dict(saved[1])
    return again
