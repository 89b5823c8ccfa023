"""Checkpoints of fairseq's own `transformer`, and of its nllb branch with experts in files apart.

The nllb branch writes `NAME-shared.pt` and, for each rank, `NAME-rank-N.pt`, which holds that
rank's experts under local numbers.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any

from mtmoe.checkpoint.fairseq_file import as_dict, check_readable
from mtmoe.checkpoint.stated_values import check_number, check_sizes, describe_misfit
from mtmoe.checkpoint.tensor_stream import WEIGHTS, StoredTensor, stored_tensors
from mtmoe.config import ChoiceWeight, TransformerConfig, build_config
from mtmoe.data.vocabulary import Vocabulary, language_tag, read_symbols
from mtmoe.errors import CheckpointError, ConfigError, DataError
from mtmoe.files import check_input, read_lines
from mtmoe.interop.foreign_model import ForeignModel
from mtmoe.interop.huggingface_tokenizer import pieces_of
from mtmoe.interop.names import FAIRSEQ

SHARED = "-shared.pt"
COUNTS = ("encoder_layers", "decoder_layers", "moe_freq")
WIDTHS = ("encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads")
EXPERT = re.compile(r"(.*\.moe_layer\.experts\.)(\d+)(\..*)")
FIRST_POSITION = 2  # fairseq numbers positions from its padding's id + 1
NEEDED = {  # what the network has and fairseq's model may not
    "encoder_normalize_before": True, "decoder_normalize_before": True,
    "share_all_embeddings": True, "encoder_learned_pos": False, "decoder_learned_pos": False,
    "layernorm_embedding": False, "no_token_positional_embeddings": False,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TextFiles:
    """What a checkpoint of fairseq does not hold."""

    dictionary: Path  # dict.txt
    sentencepiece: Path
    languages: Sequence[str]  # in the order of the tags behind the dictionary


def read_fairseq(path: Path, files: TextFiles) -> ForeignModel:
    """The model in a checkpoint of fairseq; its numbers stay on the disk.

    Raises:
        CheckpointError: a file is missing or damaged, or the network has no such setting.
        DataError: the dictionary is not text.
    """
    weights = stored_tensors(path, WEIGHTS)
    ranks = _whole_ranks(path) if path.name.endswith(SHARED) else []
    for rank, file in enumerate(ranks):
        weights |= _experts_of(stored_tensors(file, WEIGHTS), rank)
    values = _settings(check_readable(path), path)
    config, scale = _config(values, weights, path)
    vocabulary, order = _vocabulary(files, weights, path)
    return ForeignModel(
        config, FAIRSEQ, weights, vocabulary, order,
        embedding_scale=scale, expert_scale=1 - float(values.get("moe_eom") or 0),
    )  # fmt: skip


def rank_files(path: Path) -> dict[int, Path]:
    """By rank, the files of experts that stand beside a -shared file; none beside another one."""
    name = path.name.removesuffix(SHARED)
    beside = path.parent.glob(f"{escape(name)}-rank-*.pt") if name != path.name else ()
    numbered = {file.stem.rpartition("-")[2]: file for file in beside}
    return {int(number): file for number, file in numbered.items() if number.isdecimal()}


def _whole_ranks(path: Path) -> list[Path]:
    """The files of experts beside a -shared file, in the order of ranks.

    Raises:
        CheckpointError: there is none, or a rank between others lacks its file.
    """
    name, numbers = path.name.removesuffix(SHARED), rank_files(path)
    missing = next(n for n in range(len(numbers) + 1) if n not in numbers)
    if not numbers or missing < len(numbers):
        raise CheckpointError(
            f"{path} must have the files of all ranks beside it, but {name}-rank-{missing}.pt is "
            "not there. Fetch it."
        )
    return [numbers[n] for n in sorted(numbers)]


def _experts_of(weights: Mapping[str, StoredTensor], rank: int) -> dict[str, StoredTensor]:
    """A rank's experts under their numbers in the whole layer."""
    found = {name: EXPERT.fullmatch(name) for name in weights}
    local = {int(match[2]) for match in found.values() if match}
    return {
        f"{match[1]}{rank * len(local) + int(match[2])}{match[3]}": weights[name]
        for name, match in found.items()
        if match
    }


def _settings(state: Mapping[str, Any], path: Path) -> dict[str, Any]:
    config = state.get("cfg")
    found = config.get("model") if isinstance(config, Mapping) else None
    found = found or state.get("args")
    if not isinstance(found, Mapping | argparse.Namespace):
        raise CheckpointError(f"{path} must hold cfg or args of fairseq, but holds neither.")
    return as_dict(found)


def _config(
    values: Mapping[str, Any], weights: Mapping[str, StoredTensor], path: Path
) -> tuple[TransformerConfig, float]:
    """Our settings, and the scale of the embedding."""
    for name, wanted in NEEDED.items():
        if bool(values.get(name, False)) is not wanted:
            raise CheckpointError(
                f"{name} of {path} must be {wanted}, but is {not wanted}. The network has no such "
                "setting."
            )
    for name in ("ffn_embed_dim", "attention_heads", "embed_dim"):
        if values.get(f"encoder_{name}") != values.get(f"decoder_{name}"):
            raise CheckpointError(f"decoder_{name} of {path} must equal encoder_{name}.")
    stated = {name: value for name, value in values.items() if value is not None}
    for name in ("dropout", "max_source_positions", "moe_eom"):
        check_number(stated, name, path)
    check_sizes(stated, COUNTS, WIDTHS, [tensor.shape for tensor in weights.values()], path)
    experts = {int(match[2]) for match in map(EXPERT.fullmatch, weights) if match}
    try:
        config = build_config(TransformerConfig, _flat(values, len(experts)))
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} must hold all sizes, but {describe_misfit(error)}. Give another file."
        ) from None
    except ConfigError as error:
        raise CheckpointError(f"{path} must describe a model of ours, but: {error}") from None
    is_scaled = not values.get("no_scale_embedding", False)
    return config, 1.0 if is_scaled else config.embed_dim**-0.5


def _flat(values: Mapping[str, Any], num_experts: int) -> dict[str, Any]:
    flat = {
        "encoder_layers": values["encoder_layers"],
        "decoder_layers": values["decoder_layers"],
        "embed_dim": values["encoder_embed_dim"],
        "ffn_dim": values["encoder_ffn_embed_dim"],
        "attention_heads": values["encoder_attention_heads"],
        "activation": values.get("activation_fn", "relu"),
        "dropout": values.get("dropout", 0.1),
        "max_positions": values.get("max_source_positions", 1024),
        "first_position": FIRST_POSITION,
        "jitter": 0.0,
        "moe_every": values["moe_freq"] if num_experts else 0,
    }
    if num_experts:
        flat |= {"num_experts": num_experts, "top_k": 1 if values.get("moe_top1_expert") else 2}
        flat["choice_weight"] = ChoiceWeight.auto
    return flat


def _vocabulary(
    files: TextFiles, weights: Mapping[str, StoredTensor], path: Path
) -> tuple[Vocabulary, tuple[int, ...]]:
    """Dictionary, then languages; what the embedding has beyond (fairseq's made-up words) before.

    Raises:
        CheckpointError: the embedding has fewer rows than symbols; a damaged SentencePiece model.
        DataError: the dictionary has a symbol twice.
    """
    check_input("--spm", files.sentencepiece)
    symbols = list(read_symbols("\n".join(read_lines(files.dictionary))))
    if len(set(symbols)) < len(symbols):
        raise DataError(
            f"--dict must have each symbol once, and no special one, but {files.dictionary} has "
            f"{len(symbols) - len(set(symbols))} twice. Give the dict.txt of the model."
        )
    tags = [language_tag(code) for code in files.languages]
    base = [symbol for symbol in symbols if symbol not in tags]
    names = [*symbols, *(tag for tag in tags if tag not in symbols)]
    rows = next(iter(weights[FAIRSEQ.embedding].shape), 0) if FAIRSEQ.embedding in weights else 0
    if rows < len(names) or len(base) + len(tags) != len(names):
        raise CheckpointError(
            f"the embedding of {path} must have a row for each of the {len(names)} symbols and "
            f"languages, but has {rows}. Give the dictionary and languages that it was trained on."
        )
    others = [n for n in range(rows) if n >= len(names) or names[n] not in tags]
    order = (*others, *(names.index(tag) for tag in tags))
    names += [f"madeupword{n:04}" for n in range(rows - len(names))]
    model = files.sentencepiece.read_bytes()
    pieces_of(model)
    return Vocabulary(tuple(names[n] for n in order), model), order
