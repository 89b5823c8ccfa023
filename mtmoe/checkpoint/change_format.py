"""A gathered checkpoint made sharded and back, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtmoe.checkpoint.fairseq_file import (
    BOOKKEEPING,
    SHARDS,
    check_readable,
    file_of,
    shards_name,
    write_checkpoint,
)
from mtmoe.checkpoint.shard_folder import MODEL, OPTIMIZER, ShardFolder
from mtmoe.checkpoint.sharded import (
    NAMES,
    model_tensors,
    open_shards,
    split_adam,
    stub_of_model,
    write_folder,
)
from mtmoe.checkpoint.tensor_stream import WEIGHTS, Piece, fill_in_pieces, placeholder
from mtmoe.errors import CheckpointError

ADAM = "last_optimizer_state"  # fairseq's name


def gather_checkpoint(source: str | Path, path: str | Path) -> None:
    """Write the sharded checkpoint `source`, a `.pt` or a folder, as one ordinary `.pt`.

    Memory holds the largest tensor, and one chunk of it: what one rank had.

    Raises:
        CheckpointError: `source` is gathered, not whole, or damaged.
        OSError: the disk is full or the folder is not writable; nothing is left behind.
    """
    file = file_of(source)
    state = check_readable(file)
    folder = open_shards(file, state)
    if folder is None:
        raise CheckpointError(
            f"{source} must be sharded, but is gathered already. Use it as it is."
        )
    weights = folder.shapes(MODEL)
    empty = {name: placeholder(*weights[name]) for name in state[WEIGHTS][NAMES]}
    found = {**state, WEIGHTS: empty}
    if ADAM in state:
        found[ADAM] = _empty_adam(state[ADAM], folder)
    fill_in_pieces(path, found, _pieces(folder))


def shard_checkpoint(source: str | Path, path: str | Path) -> None:
    """Write the gathered checkpoint `source` as a folder of shards, which works alone.

    The file is mapped: memory holds one tensor at most.

    Raises:
        CheckpointError: `source` is sharded, or no checkpoint.
        OSError: the disk is full or the folder is not writable; nothing is left behind.
    """
    state = check_readable(file_of(source))
    if shards_name(state) is not None:
        raise CheckpointError(
            f"{source} must be gathered, but is sharded already. Use it as it is."
        )
    if not isinstance(state.get(WEIGHTS), dict):
        raise CheckpointError(f"{source} must hold the weights of a model, but has none.")
    name = Path(path).name
    stub = {**state, WEIGHTS: stub_of_model(name, state[WEIGHTS])}
    tensors = model_tensors(state[WEIGHTS])
    if state.get(ADAM):
        small, averages = split_adam(state[ADAM])
        stub[ADAM] = {**small, SHARDS: name}
        tensors |= averages
    write_folder(Path(path), tensors, lambda part: write_checkpoint(part / BOOKKEEPING, stub))


def _empty_adam(stub: dict[str, Any], folder: ShardFolder) -> dict[str, Any]:
    """The optimizer's state with placeholders for its averages."""
    state = {number: dict(values) for number, values in stub["state"].items()}
    for name, spec in folder.shapes(OPTIMIZER).items():
        number, _, key = name.partition(".")
        state[int(number)][key] = placeholder(*spec)
    return {**{key: value for key, value in stub.items() if key != SHARDS}, "state": state}


def _pieces(folder: ShardFolder) -> Iterator[Piece]:
    for name, stored in folder.stored_tensors(MODEL).items():
        yield Piece(f"{WEIGHTS}/{name}", stored.read())
    for name, stored in folder.stored_tensors(OPTIMIZER).items():
        number, _, key = name.partition(".")
        yield Piece(f"{ADAM}/state/{number}/{key}", stored.read())
