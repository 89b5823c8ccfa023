"""One MoE layer whose experts two ranks share out: mtmoe's, and DeepSpeed's for comparison.

An "update" is forward and backward of each rank's own tokens, without an optimizer. Both are
dropless, top-1, ReLU, without noise. DeepSpeed runs in the environment of benchmarks/peers.sh.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.communication import CommunicationClock
from benchmarks.moe_cell import Cell, draw, make_model
from benchmarks.moe_peers import set_up_deepspeed
from mtmoe.config import MeshConfig, RouterConfig, TransformerConfig, Zero
from mtmoe.modules.moe_layer import MoELayer
from mtmoe.modules.tokens import Tokens
from mtmoe.parallel.collectives import count_traffic
from mtmoe.parallel.engine_traffic import EngineTraffic
from mtmoe.parallel.mesh import make_mesh
from mtmoe.parallel.plan import parallelize

EXPERTS = 8


class Layer:
    """This rank's part of a layer with its tokens."""

    def __init__(self, module: nn.Module, forward: Callable[[Tensor], Tensor], cell: Cell) -> None:
        self.module, self.forward = module.train(), forward
        seed = 2 * dist.get_rank()
        self.x, self.gradient = draw(cell, seed).requires_grad_(), draw(cell, seed + 1)
        self.clock = CommunicationClock()
        self.clock.start()

    def update(self) -> dict[str, float | None]:
        """Forward and backward; {"communication": seconds of this rank}; there is no loss."""
        self.x.grad = None
        self.module.zero_grad(set_to_none=True)
        before = self.clock.seconds
        self.forward(self.x).backward(self.gradient)  # type: ignore[no-untyped-call]
        return {"loss": None, "communication": self.clock.seconds - before}

    def count(self) -> dict[str, Any]:
        """An update; what this rank sent, {"calls", "bytes"} by kind."""
        with count_traffic() as traffic, EngineTraffic(traffic):
            self.update()
        return {"calls": dict(traffic.calls), "bytes": dict(traffic.sent_bytes)}


def cell_of(options: dict[str, Any]) -> Cell:
    """The sizes of the layer; `tokens` are those of a rank."""
    dim = options["dim"]
    return Cell(options["tokens"], EXPERTS, 1, "float32", dim, 4 * dim)


def make_mtmoe(options: dict[str, Any]) -> Layer:
    """mtmoe's layer."""
    cell = cell_of(options)
    mesh = make_mesh(MeshConfig(expert_parallel_size=dist.get_world_size()))
    config = TransformerConfig(
        embed_dim=cell.dim,
        ffn_dim=cell.ffn_dim,
        attention_heads=1,
        router=RouterConfig(num_experts=EXPERTS, top_k=1, jitter=0.0),
    )

    def make() -> nn.Module:
        layer = MoELayer(config, 0, mesh=mesh)
        parallelize(layer, [], mesh, Zero.none)
        return layer

    layer = make_model(make, cell, "router.weight")
    tokens = Tokens((1, cell.tokens))
    return Layer(layer, lambda x: layer(x, tokens)[0], cell)


def make_deepspeed(options: dict[str, Any]) -> Layer:
    """DeepSpeed's layer."""
    cell = cell_of(options)
    set_up_deepspeed()
    layer_class = import_module("deepspeed.moe.layer").MoE
    import_module("deepspeed").init_distributed("gloo", verbose=False)

    def make() -> nn.Module:
        expert = nn.Sequential(
            nn.Linear(cell.dim, cell.ffn_dim), nn.ReLU(), nn.Linear(cell.ffn_dim, cell.dim)
        )
        layer: nn.Module = layer_class(
            cell.dim,
            expert,
            EXPERTS,
            ep_size=dist.get_world_size(),
            k=1,
            drop_tokens=False,
            use_rts=False,
        )
        return layer

    layer = make_model(make, cell, "deepspeed_moe.gate.wg.weight")
    layer.set_deepspeed_parallelism()  # type: ignore[operator]
    return Layer(layer, lambda x: layer(x)[0], cell)
