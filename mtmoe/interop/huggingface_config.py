"""Hugging Face's `config.json` of M2M-100, NLLB and NLLB-MoE: read and written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtmoe.checkpoint.stated_values import check_number, describe_misfit
from mtmoe.config import (
    Activation,
    ChoiceWeight,
    ChooseBy,
    DecoderStart,
    EncoderTags,
    SecondChoice,
    TransformerConfig,
    build_config,
)
from mtmoe.data.vocabulary import BOS, EOS, PAD
from mtmoe.errors import CheckpointError, ConfigError

DENSE, MOE = "m2m_100", "nllb-moe"
CLASSES = {DENSE: "M2M100ForConditionalGeneration", MOE: "NllbMoeForConditionalGeneration"}
TOP_K = 2  # of NllbMoe
SECOND_POLICY = {"all": SecondChoice.always, "random": SecondChoice.sampled}
SAME_ON_BOTH_SIDES = ("ffn_dim", "attention_heads")
COUNTS = (
    "encoder_layers", "decoder_layers", "num_experts", "encoder_sparse_step", "decoder_sparse_step",
)  # fmt: skip
WIDTHS = ("vocab_size", "d_model", "encoder_ffn_dim", "encoder_attention_heads")
NUMBERS = (
    "dropout", "attention_dropout", "activation_dropout", "moe_token_dropout",
    "router_aux_loss_coef", "router_z_loss_coef", "max_position_embeddings",
)  # fmt: skip
OWN = "mtmoe"  # the entry of a `config.json` that only we read


@dataclass(frozen=True)
class Reading:
    """What stands around sentences, under `OWN` in a `config.json` of ours; by default as NLLB."""

    encoder_tags: EncoderTags = EncoderTags.source
    decoder_start: DecoderStart = DecoderStart.end_and_tag
    directions: tuple[str, ...] | None = None  # that the model was trained on; None: all
    symbols: tuple[str, ...] = ()  # the last ones, for which NLLB's tokenizer has no name


@dataclass(frozen=True)
class TheirSettings:
    """What a `config.json` says."""

    config: TransformerConfig
    model_type: str
    vocab_size: int
    embedding_scale: float
    expert_scale: float
    reading: Reading


def read_settings(values: Mapping[str, Any], path: str) -> TheirSettings:
    """Our settings of their model.

    Raises:
        CheckpointError: the model is of another kind, or the network cannot represent a setting.
    """
    try:
        _check_kind(values, path)
        for name in NUMBERS:
            check_number(values, name, path)
        is_moe = values["model_type"] == MOE
        flat = _dense_values(values) | (_moe_values(values, path) if is_moe else {"moe_every": 0})
        scale = 1.0 if values.get("scale_embedding", True) else 1 / math.sqrt(values["d_model"])
        token_dropout = float(values.get("moe_token_dropout", 0.2)) if is_moe else 0.0
        return TheirSettings(
            config=build_config(TransformerConfig, flat),
            model_type=values["model_type"],
            vocab_size=int(values["vocab_size"]),
            embedding_scale=scale,
            expert_scale=1 - token_dropout,
            reading=read_reading(values.get(OWN), path),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} must hold all sizes of the model, but {describe_misfit(error)}. Fetch it "
            "again."
        ) from None
    except ConfigError as error:
        raise CheckpointError(f"{path} must describe a model of ours, but: {error}") from None


def read_reading(values: Any, path: str) -> Reading:
    """What an export of ours says of itself; NLLB's way without it.

    Raises:
        CheckpointError: the entry is not understood.
    """
    if values is None:
        return Reading()
    try:
        tags, start = EncoderTags(values["encoder_tags"]), DecoderStart(values["decoder_start"])
        directions, symbols = values["directions"], values.get("symbols", ())
        return Reading(tags, start, tuple(map(str, directions)), tuple(map(str, symbols)))
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            f"{OWN} of {path} must say encoder_tags, decoder_start and directions, but is "
            f"{values!r}. Export the model again."
        ) from None


def _check_kind(values: Mapping[str, Any], path: str) -> None:
    _require(path, values, "model_type", (DENSE, MOE), None)
    _require(path, values, "activation_function", ("relu", "gelu"), "relu")
    _require(path, values, "tie_word_embeddings", (True,), True)
    _require(path, values, "scale_embedding", (True, False), True)
    _require(path, values, "eos_token_id", (EOS,), EOS)
    _require(path, values, "pad_token_id", (PAD, -1), PAD)
    for name in SAME_ON_BOTH_SIDES:
        _require(path, values, f"decoder_{name}", (values[f"encoder_{name}"],), None)


def _require(
    path: str, values: Mapping[str, Any], name: str, allowed: tuple[Any, ...], default: Any
) -> None:
    if values.get(name, default) not in allowed:
        listed = " or ".join(str(value) for value in allowed)
        raise CheckpointError(
            f"{name} of {path} must be {listed}, but is {values.get(name, default)}. The network "
            "has no such setting."
        )


def _dense_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "encoder_layers": int(values["encoder_layers"]),
        "decoder_layers": int(values["decoder_layers"]),
        "embed_dim": int(values["d_model"]),
        "ffn_dim": int(values["encoder_ffn_dim"]),
        "attention_heads": int(values["encoder_attention_heads"]),
        "activation": values.get("activation_function", "relu"),
        "dropout": float(values.get("dropout", 0.1)),
        "attention_dropout": float(values.get("attention_dropout", 0.1)),
        "activation_dropout": float(values.get("activation_dropout", 0.0)),
        "max_positions": int(values.get("max_position_embeddings", 1024)),
        "first_position": int(values.get("pad_token_id", PAD)) + 1,
        "jitter": 0.0,
    }


def _moe_values(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Routers drop nothing in evaluation here: their capacity makes sentences depend on others."""
    _require(path, values, "decoder_sparse_step", (values["encoder_sparse_step"],), None)
    _require(path, values, "router_bias", (False,), False)
    _require(path, values, "second_expert_policy", tuple(SECOND_POLICY), "all")
    if int(values["num_experts"]) < TOP_K:
        raise CheckpointError(f"num_experts of {path} must be at least {TOP_K}, but is 1.")
    return {
        "moe_every": int(values["encoder_sparse_step"]),
        "num_experts": int(values["num_experts"]),
        "top_k": TOP_K,
        "choice_weight": ChoiceWeight.normalised,
        "second_choice": SECOND_POLICY[values.get("second_expert_policy", "all")],
        "balance_loss_weight": float(values.get("router_aux_loss_coef", 0.001)),
        "z_loss_weight": float(values.get("router_z_loss_coef", 0.001)),
    }


def check_exportable(config: TransformerConfig) -> None:
    """Refuse what neither of their two networks has.

    Raises:
        ConfigError: names the setting.
    """
    router = config.router
    is_moe = bool(config.moe_layer_names)
    rules = [
        ("activation", config.activation, config.activation is not Activation.swiglu),
        ("encoder_routing", config.encoder_routing, config.encoder_routing is ChooseBy.token),
        ("shared_ffn_dim", config.shared_ffn_dim, config.shared_ffn_dim == 0),
        ("top_k", router.top_k, router.top_k == TOP_K),
        ("choice_weight", router.choice_weight, router.choice_weight is not ChoiceWeight.raw),
        ("router_input", router.router_input, not router.reads_languages),
        ("bias_update_rate", router.bias_update_rate, router.bias_update_rate == 0),
        ("first_position", config.first_position, config.first_position in (0, PAD + 1)),
    ]
    always = ("activation", "first_position")
    for name, value, is_met in rules:
        if not is_met and (is_moe or name in always):
            raise ConfigError(
                f"{name} of the checkpoint is {value}, which Hugging Face's models have no setting "
                "for. Prune the model to one expert a layer, which makes it dense, or train "
                "without it."
            )


def write_settings(
    config: TransformerConfig, vocab_size: int, reading: Reading, dtype: str
) -> dict[str, Any]:
    """Their `config.json` of our network.

    Positions are numbered from `pad_token_id` + 1 there; nothing else in evaluation reads that id,
    so it is -1 for a model whose positions begin at 0. (The tokenizer pads with 1, and
    `generation_config.json` says so.)
    """
    kind = MOE if config.moe_layer_names else DENSE
    has_start = reading.decoder_start is DecoderStart.end_and_tag
    sizes = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (
            ("layers", getattr(config, f"{side}_layers")),
            ("ffn_dim", config.ffn_dim),
            ("attention_heads", config.attention_heads),
            ("layerdrop", 0.0),
        )
    }
    values = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "is_encoder_decoder": True,
        "vocab_size": vocab_size,
        "d_model": config.embed_dim,
        **sizes,
        "num_hidden_layers": config.encoder_layers,
        "activation_function": config.activation.value,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "max_position_embeddings": config.max_positions,
        "scale_embedding": True,
        "bos_token_id": BOS,
        "pad_token_id": config.first_position - 1,
        "eos_token_id": EOS,
        "decoder_start_token_id": EOS if has_start else None,
        OWN: dataclasses.asdict(reading),
        "tokenizer_class": "NllbTokenizer",
        "torch_dtype": dtype,
    }
    return values | (_their_moe_values(config) if kind == MOE else {})


def _their_moe_values(config: TransformerConfig) -> dict[str, Any]:
    router = config.router
    policies = {ours: theirs for theirs, ours in SECOND_POLICY.items()}
    return {
        "encoder_sparse_step": config.moe_every,
        "decoder_sparse_step": config.moe_every,
        "num_experts": router.num_experts,
        "expert_capacity": 64,
        "moe_eval_capacity_token_fraction": 1.0,  # nothing is dropped in evaluation
        "moe_token_dropout": 0.0,
        "router_bias": False,
        "router_dtype": "float32",
        "router_ignore_padding_tokens": False,
        "router_aux_loss_coef": router.balance_loss_weight,
        "router_z_loss_coef": router.z_loss_weight,
        "second_expert_policy": policies[router.second_choice],
    }


def generation_settings(start: DecoderStart, suppressed: tuple[int, ...]) -> dict[str, Any]:
    """Their `generation_config.json`: the search of `mtmoe translate`.

    Where the language tag alone starts the decoder, it has to be given with each call, as
    `decoder_start_token_id`: without it, `generate` stops with an error rather than translate
    into any language.
    """
    has_start = start is DecoderStart.end_and_tag
    return {
        "bos_token_id": BOS if has_start else None,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "decoder_start_token_id": EOS if has_start else None,
        "num_beams": 4,
        "early_stopping": True,
        "length_penalty": 1.0,
        "max_length": 200,
        "bad_words_ids": [[number] for number in suppressed],  # (suppress_tokens undoes forced_bos)
        "begin_suppress_tokens": [EOS],
    }
