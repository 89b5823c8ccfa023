"""A folder of Hugging Face (M2M-100, NLLB, NLLB-MoE) as a model to take over."""

from __future__ import annotations

from pathlib import Path

from mtmoe.checkpoint.stated_values import check_sizes
from mtmoe.checkpoint.tensor_stream import StoredTensor, stored_tensors
from mtmoe.errors import CheckpointError
from mtmoe.interop.foreign_model import ForeignModel, require_weight
from mtmoe.interop.huggingface_config import COUNTS, MOE, WIDTHS, read_settings
from mtmoe.interop.huggingface_tokenizer import read_json, read_tokenizer
from mtmoe.interop.names import HUGGINGFACE_DENSE, HUGGINGFACE_MOE
from mtmoe.interop.safetensors_file import read_header

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # the first that is there is read
EMBEDDING = "model.shared.weight"


def read_folder(folder: Path) -> ForeignModel:
    """The model in `folder`; its numbers stay on the disk.

    Raises:
        CheckpointError: a file is missing, damaged, or of a model that the network cannot be.
    """
    path = folder / "config.json"
    values, weights = read_json(path), _read_weights(folder)
    require_weight(weights, EMBEDDING)
    check_sizes(values, COUNTS, WIDTHS, [tensor.shape for tensor in weights.values()], path)
    settings = read_settings(values, str(path))
    theirs = read_tokenizer(folder, settings.vocab_size, settings.reading.symbols)
    return ForeignModel(
        config=settings.config,
        dialect=HUGGINGFACE_MOE if settings.model_type == MOE else HUGGINGFACE_DENSE,
        weights=weights,
        vocabulary=theirs.vocabulary,
        order=theirs.order,
        embedding_scale=settings.embedding_scale,
        expert_scale=settings.expert_scale,
        encoder_tags=settings.reading.encoder_tags,
        decoder_start=settings.reading.decoder_start,
        directions=settings.reading.directions,
    )


def _read_weights(folder: Path) -> dict[str, StoredTensor]:
    for name in WEIGHT_FILES:
        index = folder / f"{name}.index.json"
        if index.exists():
            return _with_embedding(_read_shards(folder, index))
        if (folder / name).exists():
            return _with_embedding(_read_file(folder / name))
    raise CheckpointError(
        f"{folder} must hold {' or '.join(WEIGHT_FILES)}, or one of them in shards with an index, "
        "but holds none. Fetch the model's weights."
    )


def _read_shards(folder: Path, index: Path) -> dict[str, StoredTensor]:
    """The weights that an index names, each from the file that it names.

    Raises:
        CheckpointError: the index leads out of the folder, or a file lacks a weight.
    """
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(f, str) for f in places.values()):
        raise CheckpointError(f"{index} must hold a weight_map, but has none. Fetch it again.")
    files = {name: _read_file(_inside(folder, name, index)) for name in sorted({*places.values()})}
    for weight, name in places.items():
        if weight not in files[name]:
            raise CheckpointError(
                f"weight {weight} must be in {folder / name}, as {index.name} says, but is not. "
                "Fetch both again."
            )
    return {weight: files[name][weight] for weight, name in places.items()}


def _inside(folder: Path, name: str, index: Path) -> Path:
    if Path(name).name != name or name in ("", ".", ".."):
        raise CheckpointError(
            f"{index} must name files of its own folder, but names {name!r}. The model cannot be "
            "trusted: fetch it from elsewhere."
        )
    return folder / name


def _read_file(path: Path) -> dict[str, StoredTensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} must be a file, but is not there. Fetch it.")
    return read_header(path) if path.suffix == ".safetensors" else stored_tensors(path)


def _with_embedding(weights: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The embedding under its first name, whichever of its names a file keeps."""
    for name in (*HUGGINGFACE_DENSE.copies, "shared.weight"):
        if EMBEDDING not in weights and name in weights:
            weights[EMBEDDING] = weights.pop(name)
    return weights
