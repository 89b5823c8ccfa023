"""fairseq's `.pt` files, read and written without fairseq.

Our task puts the vocabulary, the SentencePiece model and the directions into `task_state`, so that
a checkpoint translates without the data folder that it was trained on.
"""

from __future__ import annotations

import argparse
import errno
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtmoe.config import DecoderStart, EncoderTags, TransformerConfig, build_config
from mtmoe.data.vocabulary import PAD, Vocabulary
from mtmoe.errors import CheckpointError
from mtmoe.files import check_input, open_atomic
from mtmoe.modules.transformer import Transformer

MODEL_NAME = "moe_transformer"
BOOKKEEPING = "fairseq.pt"  # the `.pt` inside a folder of shards
SHARDS = "shards"  # key of the folder's name in a sharded checkpoint, and where such folders lie
ZIP_START = b"PK\x03\x04"  # of what torch.save writes
WEIGHT_PREFIX = "transformer."  # the fairseq model class holds the network under this name


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and all that is needed to translate with it."""

    state: dict[str, Any]  # the whole file, as fairseq wrote it
    config: TransformerConfig
    weights: dict[str, Tensor]  # names of `Transformer.state_dict()`
    vocabulary: Vocabulary
    encoder_tags: EncoderTags
    directions: tuple[str, ...]  # that the model was trained on, e.g. ("de-en", "en-de")
    decoder_start: DecoderStart = DecoderStart.tag

    def build_model(self) -> Transformer:
        """The network in evaluation mode, with the checkpoint's weights."""
        model = self._empty_model()
        model.load_state_dict(self.weights)
        return model.eval()

    def map_model(self) -> Transformer:
        """As `build_model`, but the weights stay where they are, in the file if that is mapped."""
        with torch.device("meta"):
            model = self._empty_model()
        model.load_state_dict(self.weights, assign=True)
        model.positions = model.position_table()
        return model.eval()

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The weights that the config and the vocabulary ask for."""
        with torch.device("meta"):
            model = self._empty_model()
        return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}

    def _empty_model(self) -> Transformer:
        num_languages = len(self.vocabulary.languages)
        vocab_size = len(self.vocabulary.symbols)
        return Transformer(self.config, vocab_size, PAD, num_languages=num_languages)


def load_checkpoint(path: str | Path, is_mapped: bool = False) -> Checkpoint:
    """Read a checkpoint of ours; code inside a file is never run (`weights_only=True`).

    Args:
        path: a `.pt`, gathered or sharded, or a folder of shards.
        is_mapped: leave the weights in the file, from which they are read as they are used, unless
            it is sharded.

    Raises:
        CheckpointError: the file is missing, truncated, no checkpoint, or of another model.
    """
    path = file_of(path)
    state = check_readable(path) if is_mapped else _read_state(path)
    if shards_name(state) is not None:
        state = _with_tensors(path, state)
    try:
        config = state["cfg"]
        model, task = as_dict(config["model"]), as_dict(config["task"])
        name = model.get("_name") or model.get("arch") or ""
        task_state = state["task_state"]
        checkpoint = Checkpoint(
            state=state,
            config=build_config(TransformerConfig, model),
            weights=strip_prefix(state["model"]),
            vocabulary=unpack_vocabulary(task_state),
            encoder_tags=EncoderTags(str(task["encoder_tags"])),
            directions=tuple(task_state["directions"]),
            decoder_start=DecoderStart(str(task.get("decoder_start", DecoderStart.tag))),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"checkpoint must be one that mtmoe trained, but {path} lacks {error}. "
            "Give a checkpoint_*.pt of the task multitask_translation."
        ) from None
    if not str(name).startswith(MODEL_NAME):
        raise CheckpointError(
            f"checkpoint must hold a {MODEL_NAME}, but {path} holds {name!r}. Give another file."
        )
    _check_weights(checkpoint, path)
    return checkpoint


def write_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write the whole file or nothing.

    Raises:
        OSError: the disk is full or the folder is not writable.
    """
    try:
        with open_atomic(path, "wb") as file:
            torch.save(dict(state), file)
    except RuntimeError as error:  # torch's zip writer, after an OSError of the file
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def pack_vocabulary(vocabulary: Vocabulary, directions: Sequence[str]) -> dict[str, Any]:
    """What our task keeps in the checkpoint; only types that load safely."""
    return {
        "symbols": list(vocabulary.symbols),
        "sentencepiece": torch.frombuffer(bytearray(vocabulary.model), dtype=torch.uint8),
        "directions": list(directions),
    }


def unpack_vocabulary(task_state: Mapping[str, Any]) -> Vocabulary:
    """The inverse of `pack_vocabulary`."""
    model = bytes(task_state["sentencepiece"].numpy().tobytes())
    return Vocabulary(tuple(task_state["symbols"]), model)


def as_dict(config: Any) -> dict[str, Any]:
    """A section of fairseq's config: a dict after Hydra, a Namespace after the command line."""
    return vars(config) if isinstance(config, argparse.Namespace) else dict(config)


def strip_prefix(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's weights under its own names, without what else fairseq's model class keeps."""
    ours = {name: tensor for name, tensor in weights.items() if name.startswith(WEIGHT_PREFIX)}
    return {name.removeprefix(WEIGHT_PREFIX): tensor for name, tensor in ours.items()}


def check_readable(path: str | Path) -> dict[str, Any]:
    """Refuse what fairseq could not load either, before it tries.

    Returns:
        The contents; weights are not read from the disk until they are used.

    Raises:
        CheckpointError: the file is missing, truncated, or no checkpoint.
    """
    check_input("checkpoint", path, CheckpointError)
    return _read_state(path, mmap=_first_bytes(path) == ZIP_START)


def file_of(path: str | Path) -> str | Path:
    """The `.pt` of a folder of shards; any other path as it is."""
    inside = Path(path) / BOOKKEEPING
    return inside if inside.is_file() else path


def shards_name(state: Mapping[str, Any]) -> str | None:
    """The name of the folder that holds a sharded checkpoint's tensors; None: it is gathered."""
    model = state.get("model")
    name = model.get(SHARDS) if isinstance(model, dict) else None
    return name if isinstance(name, str) and Path(name).name == name else None


def _with_tensors(path: str | Path, state: dict[str, Any]) -> dict[str, Any]:
    """A sharded checkpoint's state as if it were gathered; averages are read as they are used."""
    from mtmoe.checkpoint.sharded import gathered_state

    return gathered_state(path, state)


def _read_state(path: str | Path, mmap: bool = False) -> dict[str, Any]:
    check_input("checkpoint", path, CheckpointError)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bytes that are no checkpoint
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # (damaged bytes can raise anything)
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: the zip is cut off
            raise
        raise CheckpointError(
            f"checkpoint must be a whole .pt file of fairseq, but {path} "
            f"{_why_unreadable(path, error)}. Give another file."
        ) from None
    if not isinstance(state, dict):
        kind = type(state).__name__
        raise CheckpointError(
            f"checkpoint must hold fairseq's dict, but {path} holds a {kind}. Give another file."
        )
    return state


def _why_unreadable(path: str | Path, error: Exception) -> str:
    """What is wrong with the file; PyTorch's own reasons are of the file's inside."""
    start = _first_bytes(path)
    if not start:
        return "is empty"
    if start != ZIP_START:
        return "is no checkpoint"
    if "unsupported global" in str(error).lower():  # or "GLOBAL", of modules that are blocked
        return "holds Python objects other than weights, which could run code and are never read"
    return "is cut off or damaged"


def _first_bytes(path: str | Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(len(ZIP_START))


def _check_weights(checkpoint: Checkpoint, path: str | Path) -> None:
    """Compare kinds, names and shapes with those that the config asks for.

    Raises:
        CheckpointError: names the first weight that is no dense tensor of floats, or is missing,
            unknown or of another shape.
    """
    for name, tensor in checkpoint.weights.items():
        is_dense = isinstance(tensor, Tensor) and tensor.layout == torch.strided
        if not is_dense or tensor.is_meta or not tensor.is_floating_point():
            raise CheckpointError(
                f"weight {name} of {path} must be a dense tensor of floating-point numbers, "
                "but is none. Give another file."
            )
    wanted = checkpoint.weight_shapes()
    found = {name: tuple(tensor.shape) for name, tensor in checkpoint.weights.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"weight {name} of {path} must have the shape {wanted.get(name, 'of no weight')}, "
                f"but has {found.get(name, 'no entry')}. The file does not fit its own settings."
            )
