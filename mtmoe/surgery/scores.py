"""What makes an expert worth keeping, as a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import torch
from torch import Tensor

from mtmoe.checkpoint.fairseq_file import Checkpoint
from mtmoe.errors import ConfigError
from mtmoe.modules.usage import ExpertUse
from mtmoe.surgery.state import check_finite

MATRICES = ("w_in", "w_out", "w_gate")
Measure = Callable[[ExpertUse], Tensor]  # to (N, E)


class Criterion(StrEnum):
    """By what experts are compared."""

    importance = "importance"  # share of first choices * exp(mean confidence), arXiv:2212.09811
    use = "use"  # share of all choices
    norm = "norm"  # share of all choices * norm of the weights
    random = "random"


def check_scope(uses: Mapping[str, ExpertUse], directions: Sequence[str]) -> None:
    """Refuse directions whose source or target language was not measured on its side.

    Raises:
        ConfigError: names the direction and what was measured.
    """
    sources, targets = ({d.split("-")[side] for d in uses} for side in (0, 1))
    for direction in directions:
        source, _, target = direction.partition("-")
        if source not in sources or target not in targets:
            raise ConfigError(
                f"the statistics must have {direction}, or its source and its target in other "
                f"directions, but have {', '.join(uses) or 'none'}. Measure it by "
                "`mtmoe expert-stats --add`."
            )


def score_experts(
    checkpoint: Checkpoint,
    criterion: Criterion,
    uses: Mapping[str, ExpertUse],
    directions: Sequence[str],
    seed: int = 1,
) -> Tensor:
    """The score of each expert of each MoE layer; the higher, the more it is needed.

    Encoder layers are judged by the use over all text in a direction's source language, decoder
    layers by that over all text into its target language (Koishekenov et al. 2023,
    arXiv:2212.09811). The mean over `directions` counts: each alike, however much text it has.

    Args:
        uses: of the measured directions; `check_scope` says which `directions` they suffice for.

    Returns:
        (N, E) float64; -inf for experts that a smaller layer does not have.
    """
    sizes = checkpoint.config.num_experts_by_layer
    shape = len(sizes), max(sizes)
    if criterion is Criterion.random:
        generator = torch.Generator().manual_seed(seed)
        scores = torch.rand(shape, generator=generator, dtype=torch.float64)
    elif criterion is Criterion.importance:
        scores = mean_over(uses, directions, ExpertUse.importance)
    else:
        scores = mean_load(uses, directions)
    if criterion is Criterion.norm:
        scores = scores * relative_norms(checkpoint)
    does_exist = torch.arange(shape[1]) < torch.tensor(sizes).unsqueeze(1)
    return scores.masked_fill(~does_exist, float("-inf"))


def mean_load(uses: Mapping[str, ExpertUse], directions: Sequence[str]) -> Tensor:
    """(N, E) float64 share of a layer's choices, the mean over `directions` as scores have it."""
    return mean_over(uses, directions, ExpertUse.load)


def mean_over(uses: Mapping[str, ExpertUse], directions: Sequence[str], measure: Measure) -> Tensor:
    """The mean over directions of `measure` of the source's use (encoder) or the target's."""
    by_side = []
    for side in (0, 1):
        languages = [direction.split("-")[side] for direction in directions]
        totals = {language: measure(_total(uses, side, language)) for language in set(languages)}
        by_side.append(torch.stack([totals[language] for language in languages]).mean(0))
    layers = next(iter(uses.values())).layers
    is_encoder = torch.tensor([layer.startswith("encoder") for layer in layers])
    return torch.where(is_encoder.unsqueeze(1), by_side[0], by_side[1])


def _total(uses: Mapping[str, ExpertUse], side: int, language: str) -> ExpertUse:
    first, *others = (use for d, use in uses.items() if d.split("-")[side] == language)
    return sum(others, first)


def relative_norms(checkpoint: Checkpoint) -> Tensor:
    """(N, E) float64 norm of each expert's matrices over the mean of its layer; 0 for none.

    Raises:
        CheckpointError: a weight is not finite.
    """
    config = checkpoint.config
    norms = torch.zeros(len(config.moe_layer_names), max(config.num_experts_by_layer)).double()
    for n, name in enumerate(config.moe_layer_names):
        squares = torch.zeros(config.num_experts_by_layer[n], dtype=torch.float64)
        for part in MATRICES:
            weight = checkpoint.weights.get(f"{name}.feed_forward.ffn.experts.{part}")
            if weight is not None:
                squares += torch.stack([expert.float().norm().double() ** 2 for expert in weight])
                check_finite(squares, f"{name}.feed_forward.ffn.experts.{part}")
        norms[n, : len(squares)] = squares.sqrt() / squares.sqrt().mean().clamp(min=1e-30)
    return norms
