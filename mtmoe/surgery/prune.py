"""A smaller checkpoint out of a big one: whole experts go, the others stay as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mtmoe.checkpoint.fairseq_file import Checkpoint
from mtmoe.config import TransformerConfig
from mtmoe.surgery.optimizer_state import OPTIMIZER_STATE, slice_moments
from mtmoe.surgery.scratch import Scratch
from mtmoe.surgery.state import layer_prefix, with_model

EXPERT_PARTS = (  # what has one row per expert; some only where the settings ask for them
    "router.weight", "router.choice_bias", "experts.w_in", "experts.b_in", "experts.w_out",
    "experts.b_out", "experts.w_gate",
)  # fmt: skip


def prune_checkpoint(
    checkpoint: Checkpoint, kept: Sequence[Tensor], scratch: Scratch, keep_optimizer: bool = False
) -> dict[str, Any]:
    """The whole state of a checkpoint that has only the experts `kept`.

    Experts and router rows are selected, so the remaining scores are what they were: pruning to all
    experts changes nothing, and a token whose first choice remains chooses it again.

    Args:
        kept: for each MoE layer in the order of `moe_layer_names`, (K,) int64 expert numbers; K
            may differ.
        scratch: where the new tensors lie until they are saved.
        keep_optimizer: cut the optimizer's state, too, in place of leaving it out.

    Raises:
        CheckpointError: an optimizer's state is wanted that is not there.
    """
    rows = select_rows(checkpoint, kept)
    weights = dict(checkpoint.state["model"])
    for name, experts in rows.items():
        weights[name] = scratch.select(weights[name], experts)
    config = with_numbers(checkpoint.config, [len(experts) for experts in kept])
    state = with_model(checkpoint.state, weights, config)
    if keep_optimizer:
        state[OPTIMIZER_STATE] = slice_moments(checkpoint.state, rows, scratch)
    return state


def select_rows(checkpoint: Checkpoint, kept: Sequence[Tensor]) -> dict[str, Tensor]:
    """By weight with a row per expert, the rows that stay; without layers that lose none."""
    config, rows = checkpoint.config, {}
    layers = zip(config.moe_layer_names, config.num_experts_by_layer, kept, strict=True)
    for name, size, experts in layers:
        for part in EXPERT_PARTS if len(experts) < size else ():
            if layer_prefix(name) + part in checkpoint.state["model"]:
                rows[layer_prefix(name) + part] = experts
    return rows


def with_numbers(config: TransformerConfig, numbers: Sequence[int]) -> TransformerConfig:
    """The same settings with other numbers of experts, in the order of `moe_layer_names`."""
    router = config.router.with_experts(max(numbers))
    by_layer = "" if len(set(numbers)) == 1 else ",".join(map(str, numbers))
    return dataclasses.replace(config, experts_by_layer=by_layer, router=router)
