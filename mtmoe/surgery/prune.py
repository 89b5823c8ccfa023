"""A smaller checkpoint out of a big one: whole experts go, the others stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtmoe.checkpoint.fairseq_file import WEIGHT_PREFIX, Checkpoint, as_dict
from mtmoe.errors import ConfigError

EXPERT_PARTS = (  # what has one row per expert; some only where the settings ask for them
    "router.weight", "router.choice_bias", "experts.w_in", "experts.b_in", "experts.w_out",
    "experts.b_out", "experts.w_gate",
)  # fmt: skip
OPTIMIZER_STATE = "last_optimizer_state"  # of the old shapes: a fine-tuning starts it anew
CLOCK = "previous_training_time"  # in extra_state: counts towards --stop-time-hours


def check_keep(checkpoint: Checkpoint, keep: int) -> None:
    """Refuse a number of experts that pruning cannot leave.

    Raises:
        ConfigError: the model has no experts, or `keep` is not between top_k and their number.
    """
    config = checkpoint.config
    if not config.moe_layer_names:
        raise ConfigError("the checkpoint must have MoE layers to prune, but is dense.")
    lowest, highest = config.router.top_k, config.router.num_experts
    if not lowest <= keep <= highest:
        raise ConfigError(
            f"keep must be between top_k ({lowest}) and the experts of a layer ({highest}), "
            f"but is {keep}."
        )


def select_experts(importance: Tensor, keep: int) -> list[Tensor]:
    """The `keep` most important experts of each layer, by number; of equals the first.

    Args:
        importance: (N, E) for N layers.

    Returns:
        N tensors (keep,) int64, ascending.
    """
    order = importance.argsort(dim=1, descending=True, stable=True)
    return [row.sort().values for row in order[:, :keep]]


def prune_checkpoint(checkpoint: Checkpoint, kept: Sequence[Tensor]) -> dict[str, Any]:
    """The whole state of a checkpoint that has only the experts `kept`.

    Experts and router rows are selected, so the remaining scores are what they were: pruning to all
    experts changes nothing, and a token whose first choice remains chooses it again.

    Args:
        kept: for each MoE layer in the order of `moe_layer_names`, (keep,) int64 expert numbers;
            all of one length.
    """
    weights = dict(checkpoint.state["model"])
    for name, experts in zip(checkpoint.config.moe_layer_names, kept, strict=True):
        for part in EXPERT_PARTS:
            key = f"{WEIGHT_PREFIX}{name}.feed_forward.ffn.{part}"
            if key in weights:
                weights[key] = weights[key].index_select(0, experts).clone()
    state = {k: v for k, v in checkpoint.state.items() if k != OPTIMIZER_STATE}
    state["extra_state"] = state.get("extra_state", {}) | {CLOCK: 0.0}
    model = as_dict(state["cfg"]["model"]) | {"num_experts": len(kept[0])}
    state["cfg"] = state["cfg"] | {"model": model}
    state["model"] = weights
    return state


def count_parameters(weights: dict[str, Tensor]) -> int:
    """How many numbers a model has."""
    return sum(tensor.numel() for tensor in weights.values() if torch.is_floating_point(tensor))
