"""The ranks of one row of `benchmarks.parallel`: rank 0 is the row's worker, and starts the others.

`python -m benchmarks.parallel_rows RANK FOLDER OPTIONS` is one of the others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.communication import CommunicationClock
from benchmarks.worker import Call
from mtmoe.config import (
    AdamConfig,
    CheckpointActivations,
    MeshConfig,
    RouterConfig,
    TransformerConfig,
    Zero,
)
from mtmoe.modules.router import router_loss
from mtmoe.modules.transformer import Transformer
from mtmoe.modules.vocabulary_loss import smoothed_nll
from mtmoe.ops.routing import RouterKey
from mtmoe.optim.tiled_adam import TiledAdam
from mtmoe.parallel.collectives import count_traffic
from mtmoe.parallel.engine_traffic import EngineTraffic
from mtmoe.parallel.gradients import gradient_norm, reduce_gradients
from mtmoe.parallel.mesh import make_mesh

VOCABULARY, PAD, SEED, LENGTH, RATE = 4000, 1, 3, 32, 1e-3
NUM_BATCHES = 2  # of an update, whatever the layout


class Trainee:
    """One rank of a layout: its part of the model, its optimizer and its batches, float32."""

    def __init__(self, options: dict[str, Any]) -> None:
        zero = Zero(options["zero"])
        layout = MeshConfig(options["expert"], options["tensor"], zero, options["deduplicate"])
        config = TransformerConfig(
            encoder_layers=4,
            decoder_layers=4,
            embed_dim=options["dim"],
            ffn_dim=4 * options["dim"],
            attention_heads=8,
            dropout=0.0,
            checkpoint_activations=CheckpointActivations(options["checkpoint"]),
            router=RouterConfig(num_experts=8, top_k=1, jitter=0.0),
        )
        self.mesh = make_mesh(layout)
        if self.mesh.devices is None:
            self.model = Transformer(config, VOCABULARY, PAD, SEED)
        else:
            with torch.device("meta"):
                self.model = Transformer(config, VOCABULARY, PAD, mesh=self.mesh)
            self.model.materialise(torch.device("cpu"), SEED, zero)
        self.optimizer = TiledAdam(self.model.train().parameters(), AdamConfig(), lr=RATE)
        self.shape = (options["tokens"] // LENGTH, LENGTH)
        self.number = 0  # of the update
        self.clock = CommunicationClock()
        self.clock.start()

    def update(self) -> dict[str, float]:
        """One update of all batches; {"loss": of all, "communication": seconds of this rank}."""
        before = self.clock.seconds
        self.optimizer.zero_grad()
        axis = self.mesh.batch
        total = torch.zeros(())
        for batch in range(axis.rank, NUM_BATCHES, axis.size):
            loss = self._loss(batch) / NUM_BATCHES
            (loss * axis.size).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        reduce_gradients(self.model.parameters(), self.mesh)
        gradient_norm(self.model.parameters(), self.mesh)
        if axis.size > 1:
            dist.all_reduce(total, group=axis.group)
        self.optimizer.step()
        self.number += 1
        return {"loss": total.item(), "communication": self.clock.seconds - before}

    def count(self) -> dict[str, Any]:
        """An update; what this rank sent, {"calls", "bytes"} by kind."""
        with count_traffic() as traffic, EngineTraffic(traffic):
            self.update()
        return {"calls": dict(traffic.calls), "bytes": dict(traffic.sent_bytes)}

    def _loss(self, batch: int) -> Tensor:
        """Mean loss of a target token (the decoder's own input), and the routers' losses."""
        generator = torch.Generator().manual_seed(10 * self.number + batch)
        source, target = torch.randint(4, VOCABULARY, (2, *self.shape), generator=generator)
        key = RouterKey.of(SEED, self.number, batch)
        output = self.model(source, target, key)
        logits = self.model.project(output.states.flatten(0, 1))
        loss, _ = smoothed_nll(logits, target.flatten(), 0.1, self.model.embedding)
        router = self.model.config.router
        return loss.mean() + sum(router_loss(router, 0.0, r) for r in output.routings)


def build(options: dict[str, Any]) -> dict[str, Call]:
    """The calls of a row: "update" is timed, "count" tells what is sent."""
    torch.set_num_threads(options["threads"])
    if num_ranks(options) == 1:
        member = Trainee(options)
        return {"update": Call(member.update), "count": Call(member.count)}
    with tempfile.TemporaryDirectory() as folder:
        for rank in range(1, num_ranks(options)):
            start_rank(rank, folder, options)
        member = join(0, folder, options)
        dist.barrier()  # the folder is needed until all have met
    return {
        "update": Call(member.update, before=tell_others),
        "count": Call(member.count, before=tell_others),
    }


def num_ranks(options: dict[str, Any]) -> int:
    """Of the layout."""
    ranks: int = options["data"] * options["expert"] * options["tensor"]
    return ranks


def tell_others() -> None:
    """Wake the other ranks for an update; they wait without computing."""
    dist.broadcast(torch.zeros(1), 0)


def start_rank(rank: int, folder: str, options: dict[str, Any]) -> None:
    """Start another rank; it ends when this process does, and with it the pipe between both."""
    command = [sys.executable, "-m", "benchmarks.parallel_rows", str(rank), folder]
    subprocess.Popen([*command, json.dumps(options)], stdin=subprocess.PIPE)


def join(rank: int, folder: str, options: dict[str, Any]) -> Trainee:
    """Meet the other ranks, and make this one's part of the model."""
    world = num_ranks(options)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world
    )
    return Trainee(options)


def follow(rank: int, folder: str, options: dict[str, Any]) -> None:
    """What a rank other than 0 does: update whenever rank 0 does."""
    torch.set_num_threads(options["threads"])
    member = join(rank, folder, options)
    dist.barrier()
    while True:
        tell_others()  # which here waits to be told
        member.update()


def end_with_rank_0() -> None:
    """End this process when the pipe from rank 0 does."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_rank_0, daemon=True).start()
    follow(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
