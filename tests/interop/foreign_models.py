"""Small models of other programs, and what to ask about them."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import Tensor

from mtmoe.data.vocabulary import PAD
from mtmoe.files import read_lines
from tests.inference.tiny_model import TEXT

LANGUAGES = ["deu_Latn", "eng_Latn", "fra_Latn"]
NUM_LINES = 100
DENSE_SHAPES: dict[str, dict[str, Any]] = {
    "dense": {},
    "dense_gelu": {
        "d_model": 48, "encoder_layers": 1, "decoder_layers": 3, "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "activation_function": "gelu",
    },
    "dense_unscaled": {
        "d_model": 24, "encoder_layers": 3, "decoder_layers": 1, "encoder_attention_heads": 3,
        "decoder_attention_heads": 3, "scale_embedding": False,
    },
}  # fmt: skip
MOE_SHAPES: dict[str, dict[str, Any]] = {
    "moe": {"num_experts": 4, "encoder_sparse_step": 2, "decoder_sparse_step": 2},
    "moe_sparse": {
        "num_experts": 3, "encoder_sparse_step": 4, "decoder_sparse_step": 4, "d_model": 48,
        "encoder_layers": 4, "decoder_layers": 4, "moe_token_dropout": 0.0,
    },
    "moe_every_layer": {
        "num_experts": 8, "encoder_sparse_step": 1, "decoder_sparse_step": 1,
        "encoder_layers": 1, "decoder_layers": 3, "activation_function": "gelu",
        "scale_embedding": False,
    },
}  # fmt: skip
BASE: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "max_position_embeddings": 512, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0,
}  # fmt: skip


def their_config(shape: str) -> dict[str, Any]:
    """The `config.json` of one of the shapes."""
    kind = "nllb-moe" if shape in MOE_SHAPES else "m2m_100"
    return {"model_type": kind, **BASE, **(DENSE_SHAPES | MOE_SHAPES)[shape]}


@cache
def small_sentencepiece() -> bytes:
    """A model of 80 pieces in a kilobyte: text is left as it is."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=model, vocab_size=80, hard_vocab_limit=False,
        normalization_rule_name="identity", num_threads=1, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def real_lines() -> list[str]:
    """Sentences of real text, not too long for a search that nobody trained."""
    lines = read_lines(Path(__file__).parents[1] / "samples" / "gettext" / "sample.en")
    return [line for line in dict.fromkeys(lines) if 2 < len(line) < 24][:NUM_LINES]


def padded_ids(num_symbols: int) -> tuple[Tensor, Tensor]:
    """Random ids without special ones: (5, 9) sources padded on the right, and (5, 7) targets."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(4, num_symbols, (5, 9), generator=generator)
    for row in range(5):
        source[row, 9 - row :] = PAD
    return source, torch.randint(4, num_symbols, (5, 7), generator=generator)
