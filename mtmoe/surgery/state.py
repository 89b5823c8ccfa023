"""What all surgery does to the file around the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtmoe.checkpoint.fairseq_file import WEIGHT_PREFIX, as_dict
from mtmoe.config import TransformerConfig, flat_fields
from mtmoe.errors import CheckpointError
from mtmoe.surgery.optimizer_state import OPTIMIZER_STATE

METERS = "metrics"  # in extra_state: averages of an epoch that is not over, some of each expert
CLOCK = "previous_training_time"  # in extra_state: counts towards --stop-time-hours


def with_model(
    state: Mapping[str, Any], weights: Mapping[str, Tensor], config: TransformerConfig
) -> dict[str, Any]:
    """The file `state` with other weights and settings, without an optimizer's state.

    Args:
        weights: under the names of the file.
        config: what the settings are to be; those that do not change keep their form in the file.
    """
    new = {key: value for key, value in state.items() if key != OPTIMIZER_STATE}
    kept = {key: value for key, value in state.get("extra_state", {}).items() if key != METERS}
    new["extra_state"] = kept | {CLOCK: 0.0}
    model = as_dict(state["cfg"]["model"]) | flat_settings(config)
    new["cfg"] = state["cfg"] | {"model": model}
    new["model"] = dict(weights)
    return new


def flat_settings(config: TransformerConfig) -> dict[str, Any]:
    """All settings by name, as plain values: what a checkpoint file has."""
    found = {}
    for name in flat_fields(TransformerConfig):
        owner = config if hasattr(config, name) else config.router
        value = getattr(owner, name)
        found[name] = str(value) if isinstance(value, str) else value
    return found


def layer_prefix(name: str) -> str:
    """How the names of MoE layer `name` (encoder.1) begin in the file."""
    return f"{WEIGHT_PREFIX}{name}.feed_forward.ffn."


def check_finite(numbers: Tensor, name: str) -> None:
    """Refuse numbers that come of the weight `name` and are not finite.

    Raises:
        CheckpointError: names the weight.
    """
    if not bool(numbers.isfinite().all()):
        raise CheckpointError(
            f"weight {name} must have finite numbers, but has NaN or infinity. Give a checkpoint "
            "of before the training failed."
        )


def count_parameters(weights: Mapping[str, Tensor]) -> int:
    """How many numbers a model has."""
    return sum(tensor.numel() for tensor in weights.values() if torch.is_floating_point(tensor))


def describe_change(old: TransformerConfig, state: Mapping[str, Any]) -> str:
    """One line: the flags of fairseq-train with which the new file trains on."""
    return describe_flags(flat_settings(old), state["cfg"]["model"])


def describe_flags(before: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """One line: the flags that make the settings `before` to `new` (those that both have)."""
    words = [f"--{key.replace('_', '-')} {new[key]}" for key in before if before[key] != new[key]]
    return f"to train on, give fairseq-train {' '.join(words) or 'the same settings'}\n"
