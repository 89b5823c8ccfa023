"""The rows of the MoE layer's benchmark that need nothing but mtmoe and torch."""

from __future__ import annotations

from typing import Any

from torch import nn

from benchmarks.moe_cell import Cell, cell_of, make_calls, make_model
from benchmarks.worker import Call
from mtmoe.config import BackendChoice, RouterConfig, TransformerConfig
from mtmoe.modules.moe_layer import MoELayer
from mtmoe.modules.tokens import Tokens


def build_dense(options: dict[str, Any]) -> dict[str, Call]:
    """The reference: a feed-forward network of stock torch with the FLOPs of K experts."""
    cell = cell_of(options)
    D, width = cell.dim, cell.ffn_dim * cell.top_k
    model = make_model(
        lambda: nn.Sequential(nn.Linear(D, width), nn.ReLU(), nn.Linear(width, D)), cell
    )
    return make_calls(model, cell, model)


def build_mtmoe(options: dict[str, Any]) -> dict[str, Call]:
    """mtmoe's layer as it runs by default."""
    cell = cell_of(options)
    return calls_of(build_layer(cell, BackendChoice.auto), cell)


def build_torch(options: dict[str, Any]) -> dict[str, Call]:
    """The definition of mtmoe's layer."""
    cell = cell_of(options)
    return calls_of(build_layer(cell, BackendChoice.torch), cell)


def build_layer(cell: Cell, backend: BackendChoice) -> nn.Module:
    """mtmoe's layer, dropless and without noise, as the peers are."""
    config = TransformerConfig(
        embed_dim=cell.dim,
        ffn_dim=cell.ffn_dim,
        attention_heads=1,
        backend=backend,
        router=RouterConfig(num_experts=cell.experts, top_k=cell.top_k, jitter=0.0),
    )
    return make_model(lambda: MoELayer(config, layer_index=0), cell, "router.weight")


def calls_of(layer: nn.Module, cell: Cell) -> dict[str, Call]:
    """The calls of mtmoe's layer."""
    tokens = Tokens((1, cell.tokens))
    return make_calls(layer, cell, lambda x: layer(x, tokens)[0])
