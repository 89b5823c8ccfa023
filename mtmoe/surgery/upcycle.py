"""Experts out of the feed-forward layers of a dense model, whose function they keep at first.

Sparse upcycling: Komatsuzaki et al. 2023, arXiv:2212.05055.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mtmoe.checkpoint.fairseq_file import WEIGHT_PREFIX, Checkpoint
from mtmoe.config import ChoiceWeight, ChooseBy, SharedMode, TransformerConfig
from mtmoe.data.vocabulary import PAD
from mtmoe.errors import ConfigError
from mtmoe.modules.initialise import draw_parameter
from mtmoe.modules.transformer import Transformer
from mtmoe.ops.routing import mix_seed
from mtmoe.surgery.densify import DENSE_PARTS
from mtmoe.surgery.scratch import Scratch
from mtmoe.surgery.state import layer_prefix, with_model

MOST_NOISE = 100  # more would leave nothing of the dense model, nor of its numbers' range


@dataclass(frozen=True)
class Variation:
    """What makes experts differ from the start, at the price of the dense function."""

    noise: float = 0.0  # standard deviation of normal noise, relative to that of the weights
    fresh_share: float = 0.0  # share of hidden units whose weights are drawn anew
    seed: int = 1

    def __post_init__(self) -> None:
        for name, is_met, rule in (
            ("noise", 0 <= self.noise <= MOST_NOISE, f"between 0 and {MOST_NOISE}"),
            ("fresh_share", 0 <= self.fresh_share <= 1, "between 0 and 1"),
        ):
            if not is_met:
                raise ConfigError(f"{name} must be {rule}, but is {getattr(self, name)}.")


def check_dense_at_first(config: TransformerConfig) -> None:
    """Refuse a routing in which copies of a network do not add up to that network.

    With a shared network that is added, the experts start at 0: every routing permits that.

    Raises:
        ConfigError: says why, and what to choose.
    """
    if not config.moe_layer_names:
        raise ConfigError(
            f"moe_every must be at most the number of layers, but is {config.moe_every}."
        )
    if config.shared_ffn_dim and config.shared_mode is SharedMode.add:
        return
    router = config.router
    advice = "Choose another, or --shared add: the dense network beside experts that start at 0."
    takes_all = (router.capacity_factor or 1) * router.top_k >= router.num_experts
    if ChooseBy.expert in config.routings and not takes_all:
        raise ConfigError(
            "encoder_routing must be token to begin as the dense model, but is expert, where some "
            f"tokens have no expert. {advice}"
        )
    if 0 < router.eval_capacity_factor < router.num_experts / router.top_k:
        raise ConfigError(
            "eval_capacity_factor must be 0 (or so large that an expert takes all tokens) to begin "
            f"as the dense model, but is {router.eval_capacity_factor}: tokens are dropped. "
            f"{advice}"
        )
    is_raw = router.choice_weight is ChoiceWeight.raw or router.top_k == 1
    if is_raw and router.top_k < router.num_experts:
        raise ConfigError(
            f"weights of the choices must add up to 1 to begin as the dense model, but with top_k "
            f"{router.top_k} of {router.num_experts} and raw weights they are the router's "
            f"probabilities. Set top_k to 2 or more with choice_weight auto. {advice}"
        )


def upcycle(
    dense: Checkpoint, config: TransformerConfig, scratch: Scratch, variation: Variation
) -> dict[str, Any]:
    """The whole state of a model with experts, without an optimizer's state.

    Routers (and gates) are drawn as for a new model, from `variation.seed`.

    Args:
        config: of the model to be; `check_dense_at_first` passes.
    """
    weights = dict(dense.state["model"])
    fresh = _draw_rest(dense, config, variation.seed)
    for number, name in enumerate(config.moe_layer_names):
        prefix = layer_prefix(name)
        own = {part: weights.pop(f"{prefix}{part}", None) for part, _ in DENSE_PARTS.values()}
        parts = {part: tensor for part, tensor in own.items() if tensor is not None}
        stacked = _stack(parts, config, scratch)
        _vary(stacked, variation, number)
        weights |= {f"{prefix}experts.{part}": tensor for part, tensor in stacked.items()}
        if config.shared_ffn_dim:
            weights |= {f"{prefix}shared.{part}": tensor for part, tensor in parts.items()}
        weights |= {key: fresh[key] for key in fresh if key.startswith(prefix)}
    return with_model(dense.state, weights, config)


def _stack(
    parts: Mapping[str, Tensor], config: TransformerConfig, scratch: Scratch
) -> dict[str, Tensor]:
    """E copies of the dense layer in the form of experts; outputs 0 beside an added network."""
    E, stacked = config.router.num_experts, {}
    begins_at_0 = config.shared_ffn_dim > 0 and config.shared_mode is SharedMode.add
    for part, (dense, is_matrix) in DENSE_PARTS.items():
        if dense in parts:
            own = parts[dense].t() if is_matrix else parts[dense]
            stacked[part] = scratch.empty((E, *own.shape), own.dtype)
            if not (begins_at_0 and part in ("w_out", "b_out")):
                for expert in stacked[part]:
                    expert.copy_(own)
    return stacked


def _vary(stacked: Mapping[str, Tensor], variation: Variation, layer: int) -> None:
    """Noise, and hidden units drawn anew, in place; biases of the output stay."""
    for part, hidden_dim in (("w_in", 1), ("w_gate", 1), ("w_out", 0)):
        for number, expert in enumerate(stacked.get(part, ())):
            generator = torch.Generator().manual_seed(mix_seed(variation.seed, layer, number))
            units = torch.rand(expert.shape[hidden_dim], generator=generator)
            spread = expert.float().std()
            drawn = torch.randn(expert.shape, generator=generator) * spread
            if variation.noise:
                expert.add_(variation.noise * drawn)
            is_fresh = units < variation.fresh_share
            if bool(is_fresh.any()):
                expert.copy_(torch.where(is_fresh.unsqueeze(1 - hidden_dim), drawn, expert))


def _draw_rest(dense: Checkpoint, config: TransformerConfig, seed: int) -> dict[str, Tensor]:
    """Routers and gates of a new model, by name in the file; a gate begins at equal shares."""
    num_languages = len(dense.vocabulary.languages)
    with torch.device("meta"):
        model = Transformer(config, len(dense.vocabulary.symbols), PAD, None, num_languages)
    found = {}
    for name, empty in model.state_dict().items():
        if ".ffn.router." in name or ".ffn.shared_gate." in name:
            tensor = found[WEIGHT_PREFIX + name] = torch.zeros(empty.shape, dtype=empty.dtype)
            if ".shared_gate." not in name and not name.endswith("choice_bias"):
                draw_parameter(name, tensor, seed)
    return found
