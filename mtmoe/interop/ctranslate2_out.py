"""A dense checkpoint as a folder that CTranslate2 runs (the extra `ctranslate2` of setup.cfg)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtmoe.checkpoint.fairseq_file import Checkpoint
from mtmoe.config import Activation, DecoderStart, TransformerConfig
from mtmoe.errors import ConfigError
from mtmoe.interop.huggingface_tokenizer import SENTENCEPIECE
from mtmoe.modules.transformer import sinusoidal_positions

GATED = {"linear_0": "fc_gate", "linear_0_noact": "fc_in", "linear_1": "fc_out"}
PLAIN = {"linear_0": "fc_in", "linear_1": "fc_out"}


def write_folder(checkpoint: Checkpoint, folder: Path) -> None:
    """Write model, vocabulary and SentencePiece model into `folder`, which is there and empty.

    Where the language tag starts the decoder, it is the first token of `target_prefix` in each
    call; else </s> comes before it, which CTranslate2 adds.

    Raises:
        ConfigError: the model has experts, or the package is not installed.
    """
    config = checkpoint.config
    if config.moe_layer_names:
        raise ConfigError(
            "the checkpoint must be dense, or have one expert a layer, for CTranslate2, but has "
            f"{config.router.num_experts} experts. Use mtmoe prune --keep 1 first."
        )
    spec = _empty_spec(config)
    weights = {name: _numbers(tensor) for name, tensor in checkpoint.weights.items()}
    for side, part in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        _fill_side(part, weights, side, config)
    spec.encoder.embeddings[0].weight = weights["embedding.weight"]
    spec.decoder.embeddings.weight = weights["embedding.weight"]
    spec.decoder.projection.weight = weights["embedding.weight"]
    _describe(spec, checkpoint)
    spec.validate()
    spec.save(str(folder))
    (folder / SENTENCEPIECE).write_bytes(checkpoint.vocabulary.model)


def _empty_spec(config: TransformerConfig) -> Any:
    try:
        from ctranslate2.specs import TransformerSpec, common_spec
    except ImportError:
        raise ConfigError(
            "the package ctranslate2 must be installed for this output, but is not. "
            "Run pip install 'mtmoe[ctranslate2]'."
        ) from None
    names = {Activation.relu: "RELU", Activation.gelu: "GELU", Activation.swiglu: "SWISH"}
    return TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers),
        config.attention_heads,
        pre_norm=True,
        activation=getattr(common_spec.Activation, names[config.activation]),
        ffn_glu=config.activation is Activation.swiglu,
    )


def _describe(spec: Any, checkpoint: Checkpoint) -> None:
    symbols = list(checkpoint.vocabulary.symbols)
    spec.register_source_vocabulary(symbols)
    spec.register_target_vocabulary(symbols)
    is_tag = checkpoint.decoder_start is DecoderStart.tag
    spec.config.decoder_start_token = None if is_tag else "</s>"
    spec.config.add_source_bos = spec.config.add_source_eos = False


def _numbers(tensor: Tensor) -> NDArray[Any]:
    half_or_full = tensor if tensor.dtype in (torch.float16, torch.float32) else tensor.float()
    return np.ascontiguousarray(half_or_full.numpy())


def _fill_side(
    spec: Any, weights: dict[str, NDArray[Any]], side: str, config: TransformerConfig
) -> None:
    first, last = config.first_position, config.first_position + config.max_positions
    table = sinusoidal_positions(last, config.embed_dim)[first:]
    spec.position_encodings.encodings = table.numpy().astype(weights["embedding.weight"].dtype)
    _fill_norm(spec.layer_norm, weights, f"{side}_norm")
    for n, layer in enumerate(spec.layer):
        name = f"{side}.{n}"
        attention, norm = layer.self_attention, f"{name}.attention_norm"
        _join(attention.linear[0], weights, f"{name}.attention", ("query", "key", "value"))
        _join(attention.linear[1], weights, f"{name}.attention", ("out",))
        _fill_norm(attention.layer_norm, weights, norm)
        if side == "decoder":
            cross = f"{name}.cross_attention"
            for linear, parts in enumerate((("query",), ("key", "value"), ("out",))):
                _join(layer.attention.linear[linear], weights, cross, parts)
            _fill_norm(layer.attention.layer_norm, weights, f"{name}.cross_norm")
        _fill_norm(layer.ffn.layer_norm, weights, f"{name}.feed_forward.norm")
        for theirs, ours in (GATED if config.activation is Activation.swiglu else PLAIN).items():
            _join(getattr(layer.ffn, theirs), weights, f"{name}.feed_forward.ffn", (ours,))


def _fill_norm(spec: Any, weights: dict[str, NDArray[Any]], name: str) -> None:
    spec.gamma, spec.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]


def _join(spec: Any, weights: dict[str, NDArray[Any]], name: str, parts: tuple[str, ...]) -> None:
    """One linear map that gives what several give side by side."""
    spec.weight = np.concatenate([weights[f"{name}.{part}.weight"] for part in parts])
    if f"{name}.{parts[0]}.bias" in weights:
        spec.bias = np.concatenate([weights[f"{name}.{part}.bias"] for part in parts])
