"""A model of another program becomes a checkpoint of ours, one tensor at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtmoe.checkpoint.fairseq_file import (
    MODEL_NAME,
    WEIGHT_PREFIX,
    Checkpoint,
    pack_vocabulary,
)
from mtmoe.checkpoint.tensor_stream import Piece, StoredTensor, write_in_pieces
from mtmoe.config import DecoderStart, EncoderTags, TransformerConfig, flatten_config
from mtmoe.data.vocabulary import Vocabulary
from mtmoe.errors import CheckpointError
from mtmoe.interop.names import EMBEDDING, Dialect, Part, weight_parts

DIGEST = "vocabulary_digest"  # among the weights: fairseq resumes with the same vocabulary only
OUTPUTS = ("w_out", "b_out")
NO_TRAINING = {  # what fairseq reads of a checkpoint, even if it begins anew
    "criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0,
}  # fmt: skip


@dataclass(frozen=True)
class ForeignModel:
    """Weights that lie on the disk, and what they mean in our terms."""

    config: TransformerConfig
    dialect: Dialect
    weights: dict[str, StoredTensor]
    vocabulary: Vocabulary
    order: tuple[int, ...]  # (V,) their id of each of our symbols
    encoder_tags: EncoderTags = EncoderTags.source
    decoder_start: DecoderStart = DecoderStart.end_and_tag
    embedding_scale: float = 1.0  # theirs over ours, where the embedding enters the network
    expert_scale: float = 1.0  # on what an expert gives
    directions: tuple[str, ...] | None = None  # that the model was trained on; None: all


def import_model(model: ForeignModel, path: str | Path) -> None:
    """Write `model` as a checkpoint of ours; memory holds two tensors of theirs at most.

    Two settings of theirs go into the weights. If embeddings are not multiplied by sqrt(D), ours
    are divided by it, and the last norm, whose product with them gives the logits, is multiplied.
    If experts' outputs have a factor in evaluation, the experts' last matrix takes it.

    Raises:
        CheckpointError: a weight is missing, unknown, or of another shape; names it and its file.
        OSError: the disk is full or the folder is not writable.
    """
    specs = _check(model)
    _check_copies(model)
    digest = hashlib.sha256("\n".join(model.vocabulary.symbols).encode()).digest()
    digest_piece = Piece(DIGEST, torch.frombuffer(bytearray(digest), dtype=torch.uint8))
    specs[DIGEST] = ((len(digest),), torch.uint8)
    write_in_pieces(path, _state(model), specs, _pieces(model, digest_piece))


def _check(model: ForeignModel) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """The weights of ours that theirs make up.

    Raises:
        CheckpointError: see `import_model`.
    """
    shapes = _as_checkpoint(model).weight_shapes()
    specs: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    dialect, known = model.dialect, set()
    for part in weight_parts(model.config, dialect):
        stored = require_weight(model.weights, part.theirs)
        _check_shape(part, stored, shapes[part.ours], len(model.order))
        name = WEIGHT_PREFIX + part.ours
        dtype = specs.setdefault(name, (shapes[part.ours], stored.dtype))[1]
        if not stored.dtype.is_floating_point:
            raise CheckpointError(
                f"weight {part.theirs} of {stored.file} must be of a floating-point type, but is "
                f"{stored.dtype}. Fetch the model again."
            )
        if dtype is not stored.dtype:
            raise CheckpointError(
                f"weight {part.theirs} of {stored.file} must be of type {dtype}, as the other "
                f"experts, but is {stored.dtype}. Convert the weights to one type."
            )
        known.add(part.theirs)
    for name in model.weights.keys() - known - {*dialect.copies, *dialect.ignored}:
        raise CheckpointError(
            f"weight {name} of {model.weights[name].file} must have a place in the network, but "
            "has none. The settings beside the weights are of another model, or the kind is "
            "not known."
        )
    return specs


def require_weight(weights: dict[str, StoredTensor], name: str) -> StoredTensor:
    """The weight of that name.

    Raises:
        CheckpointError: there is none.
    """
    if name not in weights:
        files = sorted({stored.file.name for stored in weights.values()})
        shown = ", ".join(files[:3]) + (", ..." if len(files) > 3 else "")
        raise CheckpointError(
            f"weight {name} must be in one of the files ({shown}), but is in none. Fetch the model "
            "again, with all its files."
        )
    return weights[name]


def _check_shape(part: Part, stored: StoredTensor, ours: tuple[int, ...], num_symbols: int) -> None:
    wanted = ours if part.expert is None else ours[1:]
    wanted = wanted[::-1] if part.is_transposed else wanted
    if part.ours == EMBEDDING:
        wanted = (num_symbols, *wanted[1:])
    if stored.shape != wanted:
        raise CheckpointError(
            f"weight {part.theirs} of {stored.file} must have the shape {wanted}, but has "
            f"{stored.shape}. The file does not fit its settings."
        )


def _check_copies(model: ForeignModel) -> None:
    """Refuse models whose output or target side has an embedding of its own."""
    names = [name for name in model.dialect.copies if name in model.weights]
    if not names:
        return
    first = model.weights[model.dialect.embedding].read()
    for name in names:
        copy = model.weights[name]
        if copy.shape != tuple(first.shape) or not torch.equal(copy.read(), first):
            raise CheckpointError(
                f"weight {name} of {copy.file} must equal {model.dialect.embedding} (one embedding "
                "for source, target and output), but does not. Such models cannot be taken over."
            )


def _pieces(model: ForeignModel, first: Piece) -> Iterator[Piece]:
    yield first
    for part in weight_parts(model.config, model.dialect):
        tensor = _fold(model, part, model.weights[part.theirs].read())
        yield Piece(WEIGHT_PREFIX + part.ours, tensor, part.expert)


def _fold(model: ForeignModel, part: Part, tensor: Tensor) -> Tensor:
    """What theirs is in our network; see `import_model`."""
    leaf = part.ours.rpartition(".")[2]
    if part.ours == EMBEDDING:
        tensor = tensor if model.embedding_scale == 1 else tensor * model.embedding_scale
        is_sorted = all(n == theirs for n, theirs in enumerate(model.order))
        return tensor if is_sorted else tensor[torch.tensor(model.order)]
    if part.ours.startswith("decoder_norm.") and model.embedding_scale != 1:
        return tensor / model.embedding_scale
    if leaf in OUTPUTS and model.expert_scale != 1:
        tensor = tensor * model.expert_scale
    return tensor.t() if part.is_transposed else tensor


def _as_checkpoint(model: ForeignModel) -> Checkpoint:
    return Checkpoint(
        state={}, config=model.config, weights={}, vocabulary=model.vocabulary,
        encoder_tags=model.encoder_tags, directions=(), decoder_start=model.decoder_start,
    )  # fmt: skip


def _state(model: ForeignModel) -> dict[str, Any]:
    """All of a checkpoint but its weights, as fairseq reads it."""
    languages = model.vocabulary.languages
    every = [f"{s}-{t}" for s in languages for t in languages if s != t]
    directions = every if model.directions is None else list(model.directions)
    return {
        "args": None,
        "cfg": {
            "model": {**flatten_config(model.config), "_name": MODEL_NAME},
            "task": {
                "_name": "multitask_translation",
                "encoder_tags": model.encoder_tags.value,
                "decoder_start": model.decoder_start.value,
            },
        },
        "criterion": None,
        "optimizer_history": [dict(NO_TRAINING)],
        "task_state": {
            **pack_vocabulary(model.vocabulary, directions),
            "encoder_tags": model.encoder_tags.value,
            "decoder_start": model.decoder_start.value,
        },
        "extra_state": {},
    }
