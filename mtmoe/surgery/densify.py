"""MoE layers of one expert, written as what they are: plain feed-forward layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtmoe.config import SharedMode, TransformerConfig
from mtmoe.errors import ConfigError
from mtmoe.surgery.prune import EXPERT_PARTS, with_numbers
from mtmoe.surgery.state import layer_prefix, with_model

DENSE_PARTS = {  # stacked part of experts: (part of a dense layer, is it a matrix)
    "w_in": ("fc_in.weight", True),
    "b_in": ("fc_in.bias", False),
    "w_out": ("fc_out.weight", True),
    "b_out": ("fc_out.bias", False),
    "w_gate": ("fc_gate.weight", True),
}


def check_dense(config: TransformerConfig) -> None:
    """Refuse a model that no dense one equals.

    Raises:
        ConfigError: says what stands against it.
    """
    numbers = config.num_experts_by_layer
    if set(numbers) != {1}:
        raise ConfigError(
            f"each layer must have 1 expert to become dense, but the layers have {numbers}. "
            "Prune with --keep 1."
        )
    if config.shared_ffn_dim and config.shared_mode is not SharedMode.add:
        raise ConfigError(
            f"shared_mode must be add to become dense, but is {config.shared_mode}, whose gate "
            "depends on the token. Leave --dense out."
        )
    if config.shared_ffn_dim and config.moe_every != 1:
        raise ConfigError(
            "moe_every must be 1 to become dense with a shared network, but is "
            f"{config.moe_every}: layers would have two widths. Leave --dense out."
        )


def densify(state: Mapping[str, Any], config: TransformerConfig) -> dict[str, Any]:
    """The same function with feed-forward layers in place of MoE layers.

    A shared network beside the expert becomes part of one wider layer.

    Args:
        state: the whole file of a model for which `check_dense` passes.
        config: its settings.
    """
    check_dense(config)
    weights = dict(state["model"])
    for name in config.moe_layer_names:
        prefix = layer_prefix(name)
        experts = {part: weights.get(f"{prefix}experts.{part}") for part in DENSE_PARTS}
        for part, stacked in experts.items():
            if stacked is not None:
                dense, is_matrix = DENSE_PARTS[part]
                own = stacked[0].t().contiguous() if is_matrix else stacked[0].clone()
                shared = weights.pop(f"{prefix}shared.{dense}", None)
                weights[f"{prefix}{dense}"] = own if shared is None else _join(dense, own, shared)
        for part in (*EXPERT_PARTS, "router.language"):
            weights.pop(f"{prefix}{part}", None)
    plain = dataclasses.replace(
        with_numbers(config, [1]),
        moe_every=0, ffn_dim=config.ffn_dim + config.shared_ffn_dim, shared_ffn_dim=0,
    )  # fmt: skip
    return with_model(state, weights, plain)


def _join(part: str, own: Tensor, shared: Tensor) -> Tensor:
    """One network out of two that are added: hidden units side by side."""
    if part == "fc_out.bias":
        return own + shared
    return torch.cat([own, shared], dim=1 if part == "fc_out.weight" else 0)
