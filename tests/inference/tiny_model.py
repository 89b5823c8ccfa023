"""Tiny random checkpoints for the tests of everything that reads one."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece

from mtmoe.checkpoint.fairseq_file import WEIGHT_PREFIX, pack_vocabulary, write_checkpoint
from mtmoe.config import TransformerConfig, build_config, flat_fields
from mtmoe.data.vocabulary import EOS, PAD, SPECIAL_SYMBOLS, Vocabulary, language_tag
from mtmoe.modules.transformer import Transformer

TEXT = (
    "Save the file.", "Delete the selected files?", "Open a new window.", "The user is not there.",
    "Close all windows!", "Choose a language: German, French or English.", "No results were found.",
    "Die Datei speichern.", "Die Dateien löschen?", "Ein neues Fenster öffnen.", "Alles schließen!",
    "Enregistrer le fichier.", "Supprimer les fichiers ?", "Aucun résultat.", "Tout fermer !",
)  # fmt: skip
SIZES = {
    "encoder_layers": 2, "decoder_layers": 2, "embed_dim": 16, "ffn_dim": 32, "attention_heads": 2,
    "moe_every": 2, "max_positions": 64, "num_experts": 4,
}  # fmt: skip
END_BIAS = 2.0  # logit that every </s> gets on top


def write_tiny_checkpoint(
    folder: Path,
    languages: Sequence[str] = ("de", "en", "fr"),
    directions: Sequence[str] = ("de-en", "en-de", "en-fr", "fr-en"),
    encoder_tags: str = "both",
    seed: int = 1,
    **config: Any,
) -> Path:
    """A checkpoint of random weights in `folder`, as fairseq would write it; returns its path.

    Args:
        config: fields of TransformerConfig and RouterConfig that differ from `SIZES`.
    """
    path = folder / "checkpoint_tiny.pt"
    write_checkpoint(path, tiny_state(languages, directions, encoder_tags, seed, **config))
    return path


def tiny_state(
    languages: Sequence[str],
    directions: Sequence[str],
    encoder_tags: str = "both",
    seed: int = 1,
    **config: Any,
) -> dict[str, Any]:
    """The contents of such a checkpoint."""
    shape = build_config(TransformerConfig, {**SIZES, **config})
    vocabulary = tiny_vocabulary(tuple(sorted(languages)))
    model = tiny_transformer(shape, len(vocabulary.symbols), seed)
    return {
        "cfg": {
            "model": {**flatten(shape), "_name": "moe_transformer"},
            "task": {"_name": "multitask_translation", "encoder_tags": encoder_tags},
        },
        "model": {WEIGHT_PREFIX + name: value for name, value in model.state_dict().items()},
        "task_state": pack_vocabulary(vocabulary, directions),
    }


def tiny_transformer(config: TransformerConfig, vocab_size: int, seed: int = 1) -> Transformer:
    """A random network that hears its source (sharp weights) and ends (a bias towards the end)."""
    model = Transformer(config, vocab_size, PAD, seed).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "embedding" not in name:
            parameter.data *= 15 if "attention.out" in name else 3
    end = model.embedding.weight.data[EOS]
    model.decoder_norm.bias.data = END_BIAS * end / end.square().sum()
    return model


@cache
def tiny_vocabulary(languages: tuple[str, ...]) -> Vocabulary:
    """Pieces of `TEXT`, then the tags of `languages`."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=model,
        vocab_size=80,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    symbols = [pieces.id_to_piece(n) for n in range(pieces.get_piece_size())]
    kept = [symbol for symbol in symbols if symbol not in SPECIAL_SYMBOLS]
    tags = [language_tag(language) for language in languages]
    return Vocabulary((*SPECIAL_SYMBOLS, *kept, *tags), model.getvalue())


def flatten(config: TransformerConfig) -> dict[str, Any]:
    """The flat fields that fairseq keeps of a config; enums as plain text."""
    values = {**dataclasses.asdict(config), **dataclasses.asdict(config.router)}
    plain = {name: getattr(value, "value", value) for name, value in values.items()}
    return {name: plain[name] for name in flat_fields(TransformerConfig)}
