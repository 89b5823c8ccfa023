"""One large model out of several: their experts side by side (Kim et al. 2021, arXiv:2109.10465).

Router rows are joined, so each probability is shared out among the parents; outputs are brought
back to what they were, and equal parents give exactly their own function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtmoe.checkpoint.fairseq_file import WEIGHT_PREFIX, Checkpoint
from mtmoe.config import ChoiceWeight, ChooseBy, TransformerConfig
from mtmoe.errors import CheckpointError
from mtmoe.surgery.prune import EXPERT_PARTS, with_numbers
from mtmoe.surgery.scratch import Scratch
from mtmoe.surgery.state import flat_settings, layer_prefix, with_model

COMMON_SETTINGS = (  # what the function depends on; in the rest the first parent is followed
    "encoder_layers", "decoder_layers", "embed_dim", "ffn_dim", "activation", "attention_heads",
    "moe_every", "shared_ffn_dim", "shared_mode", "encoder_routing", "decoder_routing",
    "max_positions", "first_position", "top_k", "choice_weight", "capacity_factor",
    "eval_capacity_factor", "min_capacity", "bias_update_rate", "router_input", "router_language",
)  # fmt: skip
OUTPUT_PARTS = ("experts.w_out", "experts.b_out")


def check_parents(parents: Sequence[Checkpoint], names: Sequence[str]) -> None:
    """Refuse models that do not fit each other.

    Args:
        names: of the files, for the error.

    Raises:
        CheckpointError: names the file and what differs from the first one.
    """
    first, settings = parents[0], flat_settings(parents[0].config)
    if not first.config.moe_layer_names:
        raise CheckpointError(f"parents must have MoE layers, but {names[0]} is dense.")
    for parent, name in zip(parents[1:], names[1:], strict=True):
        if parent.vocabulary.symbols != first.vocabulary.symbols:
            raise CheckpointError(f"parents must have one vocabulary, but {name} has another.")
        for key in ("encoder_tags", "decoder_start"):
            wanted, got = getattr(first, key), getattr(parent, key)
            if wanted is not got:
                raise CheckpointError(
                    f"{key} of {name} must be {wanted}, but is {got}. Aggregate models of one kind."
                )
        found = flat_settings(parent.config)
        for key in COMMON_SETTINGS:
            if found[key] != settings[key]:
                raise CheckpointError(
                    f"{key} of {name} must be {settings[key]!r} as in {names[0]}, but is "
                    f"{found[key]!r}. Aggregate models of one shape."
                )


def aggregate(
    parents: Sequence[Checkpoint], scratch: Scratch, dense_from: int | None = None
) -> dict[str, Any]:
    """The whole state of the joint model, without an optimizer's state.

    Args:
        parents: P >= 2 for which `check_parents` passes; the first one gives all that is no weight.
        dense_from: the parent (from 0) that gives the weights outside of experts; None: their mean.
    """
    config = aggregate_config([parent.config for parent in parents])
    expert_parts = {
        layer_prefix(name) + part: part for name in config.moe_layer_names for part in EXPERT_PARTS
    }
    weights = {}
    for name in parents[0].state["model"]:
        values = [parent.state["model"][name] for parent in parents]
        if name in expert_parts:
            scale = _scale_of(expert_parts[name], len(parents), config)
            weights[name] = _join(values, scale, scratch)
        elif name.startswith(WEIGHT_PREFIX) and dense_from is None:
            weights[name] = _mean(values, scratch)
        else:
            weights[name] = values[dense_from or 0]
    state = with_model(parents[0].state, weights, config)
    directions = sorted({direction for parent in parents for direction in parent.directions})
    state["task_state"] = state["task_state"] | {"directions": directions}
    return state


def aggregate_config(configs: Sequence[TransformerConfig]) -> TransformerConfig:
    """The settings with which P equal parents compute what one of them computes.

    One choice among tokens stays one, with outputs times P. With several, each is found P times,
    once a parent: the token takes P * top_k, and their weights add up to the parent's. So it is
    where experts choose, since each takes top_k / num_experts of the tokens.
    """
    first, P = configs[0], len(configs)
    numbers = [sum(n) for n in zip(*(c.num_experts_by_layer for c in configs), strict=True)]
    router = first.router
    if _keeps_one_choice(first):
        router = dataclasses.replace(
            router,
            capacity_factor=P * router.capacity_factor,
            eval_capacity_factor=P * router.eval_capacity_factor,
        )
    else:
        weight = router.choice_weight
        if router.top_k == 1 and weight is ChoiceWeight.auto:  # auto would be normalised for P
            weight = ChoiceWeight.raw
        router = dataclasses.replace(
            router,
            top_k=P * router.top_k,
            num_experts=P * router.num_experts,
            choice_weight=weight,
        )
    plain = dataclasses.replace(first, experts_by_layer="", router=router)
    return with_numbers(plain, numbers)


def _keeps_one_choice(config: TransformerConfig) -> bool:
    return config.router.top_k == 1 and ChooseBy.expert not in config.routings


def _scale_of(part: str, num_parents: int, config: TransformerConfig) -> float:
    """What rows are multiplied by: outputs of a raw single choice, biases beside probabilities."""
    if part == "router.choice_bias":
        return 1 / num_parents
    return num_parents if part in OUTPUT_PARTS and _keeps_one_choice(config) else 1


def _join(values: Sequence[Tensor], scale: float, scratch: Scratch) -> Tensor:
    """The rows of all parents, times `scale`, copied one by one."""
    rows = sum(len(value) for value in values)
    joined = scratch.empty((rows, *values[0].shape[1:]), values[0].dtype)
    sources = (row for value in values for row in value)
    for target, source in zip(joined, sources, strict=True):
        target.copy_(source)
    return joined if scale == 1 else joined.mul_(scale)


def _mean(values: Sequence[Tensor], scratch: Scratch) -> Tensor:
    mean = scratch.empty(values[0].shape, values[0].dtype)
    total = torch.zeros(values[0].shape, dtype=torch.float64)
    for value in values:
        total += value
    return mean.copy_(total / len(values))
