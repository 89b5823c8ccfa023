"""How other programs name the weights of the same Transformer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mtmoe.config import TransformerConfig

MATRICES = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
EMBEDDING = "embedding.weight"


@dataclass(frozen=True)
class Dialect:
    """The names that differ from program to program; `{}` stands for 1 or 2, or for an expert."""

    prefix: str
    embedding: str
    cross_attention: str
    cross_norm: str
    ffn_norm: str
    ffn: str
    router: str = ""
    expert: str = ""
    copies: tuple[str, ...] = ()  # names under which the embedding may stand a second time
    ignored: tuple[str, ...] = ()  # what is computed, not learned


HUGGINGFACE_DENSE = Dialect(
    prefix="model.",
    embedding="model.shared.weight",
    cross_attention="encoder_attn",
    cross_norm="encoder_attn_layer_norm",
    ffn_norm="final_layer_norm",
    ffn="fc{}",
    copies=("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight",
            "lm_head.weight"),
    ignored=("model.encoder.embed_positions.weights", "model.decoder.embed_positions.weights"),
)  # fmt: skip
HUGGINGFACE_MOE = Dialect(
    prefix="model.",
    embedding="model.shared.weight",
    cross_attention="cross_attention",
    cross_norm="cross_attention_layer_norm",
    ffn_norm="ff_layer_norm",
    ffn="ffn.fc{}",
    router="ffn.router.classifier",
    expert="ffn.experts.expert_{}",
    copies=HUGGINGFACE_DENSE.copies,
    ignored=HUGGINGFACE_DENSE.ignored,
)
FAIRSEQ = Dialect(
    prefix="",
    embedding="encoder.embed_tokens.weight",
    cross_attention="encoder_attn",
    cross_norm="encoder_attn_layer_norm",
    ffn_norm="final_layer_norm",
    ffn="fc{}",
    router="moe_layer.gate.wg",
    expert="moe_layer.experts.{}",
    copies=("decoder.embed_tokens.weight", "decoder.output_projection.weight"),
    ignored=("encoder.version", "decoder.version", "encoder.embed_positions._float_tensor",
             "decoder.embed_positions._float_tensor"),
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One tensor of theirs, and the place of ours that it fills."""

    ours: str
    theirs: str
    expert: int | None = None  # row of our stacked weight
    is_transposed: bool = False  # experts are (D, F) here, as x @ w needs them, and (F, D) there


def weight_parts(config: TransformerConfig, dialect: Dialect) -> Iterator[Part]:
    """Every weight of the network, each tensor of theirs once."""
    yield Part(EMBEDDING, dialect.embedding)
    for side in ("encoder", "decoder"):
        for n in range(getattr(config, f"{side}_layers")):
            yield from _layer_parts(config, dialect, side, n)
        yield from _pair(f"{side}_norm", f"{dialect.prefix}{side}.layer_norm")


def _layer_parts(config: TransformerConfig, dialect: Dialect, side: str, n: int) -> Iterator[Part]:
    ours, theirs = f"{side}.{n}", f"{dialect.prefix}{side}.layers.{n}"
    yield from _attention(f"{ours}.attention", f"{theirs}.self_attn")
    yield from _pair(f"{ours}.attention_norm", f"{theirs}.self_attn_layer_norm")
    if side == "decoder":
        yield from _attention(f"{ours}.cross_attention", f"{theirs}.{dialect.cross_attention}")
        yield from _pair(f"{ours}.cross_norm", f"{theirs}.{dialect.cross_norm}")
    yield from _pair(f"{ours}.feed_forward.norm", f"{theirs}.{dialect.ffn_norm}")
    ffn = f"{ours}.feed_forward.ffn"
    if not config.is_moe(n):
        yield from _pair(f"{ffn}.fc_in", f"{theirs}.{dialect.ffn.format(1)}")
        yield from _pair(f"{ffn}.fc_out", f"{theirs}.{dialect.ffn.format(2)}")
        return
    yield Part(f"{ffn}.router.weight", f"{theirs}.{dialect.router}.weight")
    for e in range(config.router.num_experts):
        expert = f"{theirs}.{dialect.expert.format(e)}"
        for name, number in (("in", 1), ("out", 2)):
            yield Part(f"{ffn}.experts.w_{name}", f"{expert}.fc{number}.weight", e, True)
            yield Part(f"{ffn}.experts.b_{name}", f"{expert}.fc{number}.bias", e)


def _attention(ours: str, theirs: str) -> Iterator[Part]:
    for our_name, their_name in MATRICES.items():
        yield from _pair(f"{ours}.{our_name}", f"{theirs}.{their_name}")


def _pair(ours: str, theirs: str) -> Iterator[Part]:
    for leaf in ("weight", "bias"):
        yield Part(f"{ours}.{leaf}", f"{theirs}.{leaf}")
