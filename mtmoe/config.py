"""The settings of the core: frozen dataclasses that check their own fields at birth.

Help is written here once; `mtmoe.fairseq_view` turns these classes into fairseq's command line and
Hydra groups.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, TypeVar

from mtmoe.errors import ConfigError

T = TypeVar("T")


def setting(default: T, help_text: str, alias: str | None = None) -> T:
    """A dataclass field with a default and the one line of help that all interfaces show.

    Args:
        alias: a second name on fairseq's command line, e.g. "-s".
    """
    return field(default=default, metadata={"help": help_text, "argparse_alias": alias})


class Choice(StrEnum):
    """A setting with named values; a member's name equals its value (OmegaConf reads names)."""


class DropPolicy(Choice):
    """Which tokens a full expert turns away."""

    order = "order"
    random = "random"


class EncoderTags(Choice):
    """Which language tags stand before the source sentence."""

    source = "source"
    target = "target"
    both = "both"


class Autocast(Choice):
    """Mixed precision of matrix products in training."""

    off = "off"
    bfloat16 = "bfloat16"
    auto = "auto"


@dataclass(frozen=True)
class RouterConfig:
    """How the tokens of one MoE layer choose their experts."""

    num_experts: int = setting(8, "experts of one MoE layer, over all ranks")
    top_k: int = setting(1, "experts that process each token")
    capacity_factor: float = setting(
        0.0,
        "slots per expert in training = factor * top_k * tokens / experts, rounded up; "
        "0: dropless, every choice has a slot",
    )
    drop_policy: DropPolicy = setting(
        DropPolicy.random,
        "which tokens a full expert turns away: random ones (Random Token Selection), or the last",
    )
    jitter: float = setting(
        0.01, "in training, multiply the router's input by uniform noise from 1-jitter to 1+jitter"
    )
    balance_loss_weight: float = setting(0.01, "weight of the load balance loss")

    def __post_init__(self) -> None:
        require(self, "num_experts", self.num_experts >= 1, "at least 1")
        require(
            self,
            "top_k",
            1 <= self.top_k <= self.num_experts,
            f"between 1 and num_experts ({self.num_experts})",
        )
        require(self, "capacity_factor", self.capacity_factor >= 0, "0 (dropless) or above")
        require(self, "jitter", 0 <= self.jitter < 1, "at least 0 and below 1")
        require(self, "balance_loss_weight", self.balance_loss_weight >= 0, "0 or above")


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of the one network; see `mtmoe.modules.transformer`."""

    encoder_layers: int = setting(6, "layers of the encoder")
    decoder_layers: int = setting(6, "layers of the decoder")
    embed_dim: int = setting(512, "width of the model")
    ffn_dim: int = setting(2048, "width of a dense feed-forward network, and of each expert")
    attention_heads: int = setting(8, "attention heads; embed_dim must be a multiple")
    dropout: float = setting(0.1, "dropout of embeddings and of each layer's output")
    attention_dropout: float = setting(0.0, "dropout of attention weights")
    activation_dropout: float = setting(
        0.0, "dropout after the activation of dense FFNs and experts"
    )
    moe_every: int = setting(2, "every n-th layer of encoder and decoder is an MoE layer; 0: none")
    shared_ffn_dim: int = setting(
        0, "width of a dense network beside the experts of an MoE layer, for every token; 0: none"
    )
    max_positions: int = setting(1024, "longest sentence in tokens, tags and end included")
    router: RouterConfig = field(default_factory=RouterConfig)

    def __post_init__(self) -> None:
        for name in ("encoder_layers", "decoder_layers", "embed_dim", "ffn_dim", "attention_heads"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            require(self, name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        require(
            self,
            "embed_dim",
            self.embed_dim % (2 * self.attention_heads) == 0,
            f"a multiple of twice attention_heads (2 * {self.attention_heads})",
        )
        require(self, "moe_every", self.moe_every >= 0, "0 (dense) or above")
        require(self, "shared_ffn_dim", self.shared_ffn_dim >= 0, "0 (none) or above")
        require(self, "max_positions", self.max_positions >= 4, "at least 4")

    def is_moe(self, layer: int) -> bool:
        """Whether layer number `layer` (from 0) of the encoder or the decoder has experts."""
        return self.moe_every > 0 and (layer + 1) % self.moe_every == 0

    @property
    def moe_layer_names(self) -> tuple[str, ...]:
        """The MoE layers in the order in which a sentence meets them, e.g. ("encoder.1", ...)."""
        sides = (("encoder", self.encoder_layers), ("decoder", self.decoder_layers))
        return tuple(
            f"{side}.{n}" for side, layers in sides for n in range(layers) if self.is_moe(n)
        )


@dataclass(frozen=True)
class MultitaskConfig:
    """What the task `multitask_translation` reads, and how it mixes it."""

    data: str = setting("", "folder that data_prep.binarise wrote")
    source_lang: str = setting("", "only directions from this language", "-s")
    target_lang: str = setting("", "only directions to this language", "-t")
    directions: str = setting("", "directions to use, e.g. en-de,de-en; default: both of each pair")
    sampling_temperature: float = setting(
        1.0, "share of a direction in training ~ size ** (1 / temperature); 1: each sentence once"
    )
    encoder_tags: EncoderTags = setting(
        EncoderTags.both,
        "language tags before the source sentence; the target's starts the decoder",
    )

    def __post_init__(self) -> None:
        require(self, "sampling_temperature", self.sampling_temperature >= 1, "at least 1")


@dataclass(frozen=True)
class CriterionConfig:
    """The training objective."""

    label_smoothing: float = setting(0.0, "share of probability given to all other symbols")
    autocast: Autocast = setting(
        Autocast.off,
        "precision of matrix products: off (float32), bfloat16, or auto (bfloat16 where the "
        "machine has it in hardware)",
    )

    def __post_init__(self) -> None:
        require(self, "label_smoothing", 0 <= self.label_smoothing < 1, "at least 0 and below 1")


@dataclass(frozen=True)
class DeadlineConfig:
    """The learning rate schedule `linear_to_deadline`."""

    warmup_updates: int = setting(0, "raise the learning rate linearly over the first N updates")


def require(config: object, name: str, is_met: bool, rule: str) -> None:
    """Refuse the value of `config.name` unless `is_met`.

    Raises:
        ConfigError: names the setting, the rule and the value.
    """
    if not is_met:
        raise ConfigError(f"{name} must be {rule}, but is {getattr(config, name)}.")


def flat_fields(config_class: type) -> dict[str, dataclasses.Field[Any]]:
    """The leaf fields of a config class, those of nested configs included; names are unique."""
    found: dict[str, dataclasses.Field[Any]] = {}
    for item in dataclasses.fields(config_class):
        nested = nested_config(item)
        found.update(flat_fields(nested) if nested else {item.name: item})
    return found


def nested_config(item: dataclasses.Field[Any]) -> type | None:
    """The config class that `item` nests, or None for a leaf."""
    factory = item.default_factory
    return factory if isinstance(factory, type) and dataclasses.is_dataclass(factory) else None


def build_config(config_class: type[T], values: dict[str, Any]) -> T:
    """Make a config, nested ones included, out of flat `values`; missing ones keep their defaults.

    Values of other names are ignored, so that a whole fairseq namespace may be given. Enums may be
    given as members, names or plain strings.

    Raises:
        ConfigError: a value is refused.
    """
    arguments: dict[str, Any] = {}
    for item in dataclasses.fields(config_class):  # type: ignore[arg-type]
        nested = nested_config(item)
        if nested:
            arguments[item.name] = build_config(nested, values)
        elif values.get(item.name) is not None:
            arguments[item.name] = _convert(item, values[item.name])
    return config_class(**arguments)


def _convert(item: dataclasses.Field[Any], value: Any) -> Any:
    kind = type(item.default)
    try:
        if issubclass(kind, Enum):
            return kind(str(getattr(value, "value", value)))
        return kind(value) if kind in (int, float) else value
    except ValueError:
        allowed = (
            ", ".join(map(str, kind)) if issubclass(kind, Enum) else f"of type {kind.__name__}"
        )
        raise ConfigError(f"{item.name} must be {allowed}, but is {value}.") from None
