"""How many experts stay in each layer, and which."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtmoe.checkpoint.fairseq_file import Checkpoint
from mtmoe.errors import ConfigError

Sides = tuple[int, int]  # a number for the encoder, one for the decoder


def check_keep(checkpoint: Checkpoint, keep: Sides) -> None:
    """Refuse a number of experts a layer that pruning cannot leave.

    Raises:
        ConfigError: the model has no experts, or `keep` is not between 1 and their number.
    """
    check_has_experts(checkpoint)
    for side, number in zip(("encoder", "decoder"), keep, strict=True):
        sizes = sizes_of(checkpoint, side)
        if sizes and not 1 <= number <= max(sizes):
            raise ConfigError(
                f"keep must be between 1 and the experts of a layer ({max(sizes)}), but is "
                f"{number}. Give another number."
            )


def check_total(checkpoint: Checkpoint, total: Sides, floor: int) -> None:
    """Refuse a number of experts over all layers that pruning cannot leave.

    Raises:
        ConfigError: the model has no experts, or `total` is too low for the floor, or too high.
    """
    check_has_experts(checkpoint)
    if floor < 1:
        raise ConfigError(f"floor must be at least 1, but is {floor}. Give 1 or more.")
    for side, number in zip(("encoder", "decoder"), total, strict=True):
        sizes = sizes_of(checkpoint, side)
        lowest, highest = sum(min(floor, size) for size in sizes), sum(sizes)
        if not lowest <= number <= highest:
            raise ConfigError(
                f"total must be between {lowest} (floor {floor} in each {side} layer) and "
                f"{highest} (all experts of the {side}), but is {number}. Give another number."
            )


def check_has_experts(checkpoint: Checkpoint) -> None:
    """Refuse a dense model.

    Raises:
        ConfigError: the model has no MoE layers.
    """
    if not checkpoint.config.moe_layer_names:
        raise ConfigError("the checkpoint must have MoE layers to prune, but is dense.")


def sizes_of(checkpoint: Checkpoint, side: str) -> list[int]:
    """The experts of each MoE layer of the encoder or the decoder."""
    config = checkpoint.config
    named = zip(config.moe_layer_names, config.num_experts_by_layer, strict=True)
    return [size for name, size in named if name.startswith(side)]


def keep_per_layer(scores: Tensor, numbers: Sequence[int]) -> list[Tensor]:
    """The best experts of each layer; of equals the first.

    Args:
        scores: (N, E) for N layers; -inf where there is no expert.
        numbers: how many of each layer; all of them where it has fewer.

    Returns:
        N tensors int64, ascending.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    numbers = [
        min(k, int((row > float("-inf")).sum())) for k, row in zip(numbers, scores, strict=True)
    ]
    return [row[:number].sort().values for row, number in zip(order, numbers, strict=True)]


def keep_in_total(scores: Tensor, total: int, floor: int) -> list[Tensor]:
    """The `total` experts of the highest scores over all layers, but at least `floor` in each.

    One threshold for all layers, as low as `total` permits: a layer that needs few experts leaves
    room to others.

    Args:
        scores: (N, E) for N layers; -inf where there is no expert.

    Returns:
        N tensors int64, ascending.
    """
    is_kept = torch.zeros_like(scores, dtype=torch.bool)
    for row, experts in zip(is_kept, keep_per_layer(scores, [floor] * len(scores)), strict=True):
        row[experts] = True
    order = scores.flatten().argsort(descending=True, stable=True)
    free = order[~is_kept.flatten()[order]]
    is_kept.view(-1)[free[: total - int(is_kept.sum())]] = True
    return [row.nonzero().squeeze(1) for row in is_kept]


def apply_to_sides(
    checkpoint: Checkpoint, scores: Tensor, keep: Sides | None, total: Sides | None, floor: int
) -> list[Tensor]:
    """The experts that stay in each MoE layer, encoder and decoder apart.

    Args:
        keep: experts a layer; else `total` over all layers of a side, with `floor` in each.
    """
    kept: list[Tensor] = []
    start = 0
    for n, side in enumerate(("encoder", "decoder")):
        num_layers = len(sizes_of(checkpoint, side))
        rows = scores[start : start + num_layers]
        start += num_layers
        if keep is not None:
            kept += keep_per_layer(rows, [keep[n]] * num_layers)
        elif total is not None and num_layers:
            kept += keep_in_total(rows, total[n], floor)
    return kept
