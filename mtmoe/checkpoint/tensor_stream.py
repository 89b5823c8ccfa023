"""Big `.pt` files piece by piece: memory holds one tensor, or one expert, at a time.

The file is made with its final size and all names, but without the numbers (PyTorch's `skip_data`);
then each piece is written to its place. Reading goes the same way: places first, then numbers.
"""

from __future__ import annotations

import argparse
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.serialization import skip_data

from mtmoe.checkpoint.fairseq_file import check_readable
from mtmoe.errors import CheckpointError
from mtmoe.files import open_atomic

WEIGHTS = "model"  # fairseq's name for the weights in a checkpoint


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that lies in a file; `read` brings it into memory."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path
    read: Callable[[], Tensor]


@dataclass(frozen=True)
class Piece:
    """Numbers for one weight of a new checkpoint, or for one row (an expert) of it."""

    name: str
    tensor: Tensor
    row: int | None = None


def write_in_pieces(
    path: str | Path,
    state: Mapping[str, Any],
    specs: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
    pieces: Iterable[Piece],
) -> None:
    """Write a checkpoint whose weights come one after the other; the whole file or nothing.

    Args:
        state: all but the weights.
        specs: shape and dtype of each weight.
        pieces: every number of every weight once, in any order.

    Raises:
        OSError: the disk is full or the folder is not writable.
    """
    empty = {name: placeholder(shape, dtype) for name, (shape, dtype) in specs.items()}
    named = (Piece(f"{WEIGHTS}/{piece.name}", piece.tensor, piece.row) for piece in pieces)
    fill_in_pieces(path, {**state, WEIGHTS: empty}, named)


def placeholder(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor without memory, for `fill_in_pieces`."""
    with FakeTensorMode():
        return torch.empty(shape, dtype=dtype)


def fill_in_pieces(path: str | Path, state: Mapping[str, Any], pieces: Iterable[Piece]) -> None:
    """Write a checkpoint whose placeholders get their numbers one after the other.

    Args:
        state: nested dicts; some tensors are placeholders.
        pieces: every number of every placeholder once, in any order; names are paths, `model/x`.

    Raises:
        OSError: the disk is full or the folder is not writable.
    """
    tensors = dict(_tensors_in(state))
    missing = {n: tensor.numel() for n, tensor in tensors.items() if isinstance(tensor, FakeTensor)}
    with open_atomic(path, "w+b") as file:
        with skip_data(materialize_fake_tensors=True):
            torch.save(dict(state), file)
        file.flush()
        places = _locate(file)
        for name in tensors.keys() - missing.keys():
            _write_at(file, places[name], tensors[name])
        for piece in pieces:
            _write_at(file, places[piece.name], piece.tensor, piece.row)
            missing[piece.name] -= piece.tensor.numel()
            del piece  # the next one is read while nothing holds this one
    assert not any(missing.values()), {name for name, number in missing.items() if number}


def stored_tensors(path: str | Path, section: str | None = None) -> dict[str, StoredTensor]:
    """The tensors of a `.pt` file, to be read one by one; code inside the file is never run.

    Args:
        section: the entry of the file that holds them; None: the file itself.

    Raises:
        CheckpointError: the file is missing, truncated, holds other objects, or no such section.
    """
    state = check_readable(path)
    found = state if section is None else state.get(section)
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{path} must hold weights under {section!r}, but has {', '.join(map(str, state))}. "
            "Give a checkpoint of fairseq."
        )
    tensors = {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or tensor.layout != torch.strided or tensor.is_meta:
            raise CheckpointError(
                f"weight {name} of {path} must be a dense tensor with its numbers, but is none. "
                "Give another file."
            )
    del state, found
    if not zipfile.is_zipfile(path):  # PyTorch's old format has no places
        return {name: _in_memory(tensor, Path(path)) for name, tensor in tensors.items()}
    prefix = "" if section is None else f"{section}/"
    with open(path, "rb") as file:
        places = _locate(file)
    return {name: _on_disk(places[prefix + name], Path(path)) for name in tensors}


def _in_memory(tensor: Tensor, path: Path) -> StoredTensor:
    return StoredTensor(tuple(tensor.shape), tensor.dtype, path, lambda: tensor)


def _on_disk(place: Tensor, path: Path) -> StoredTensor:
    return StoredTensor(tuple(place.shape), place.dtype, path, lambda: _read_at(path, place))


def _locate(file: IO[bytes]) -> dict[str, Tensor]:
    """The tensors of a checkpoint without their numbers, but with the place in the file."""
    file.seek(0)
    with torch.serialization.safe_globals([argparse.Namespace]), FakeTensorMode():
        return dict(_tensors_in(torch.load(file, map_location="cpu", weights_only=True)))


def _tensors_in(state: Any, prefix: str = "") -> Iterable[tuple[str, Tensor]]:
    """Every tensor of nested dicts, named like a path."""
    if isinstance(state, Tensor):
        yield prefix, state
    elif isinstance(state, Mapping):
        for name, value in state.items():
            yield from _tensors_in(value, f"{prefix}/{name}" if prefix else str(name))


def _place(tensor: Tensor) -> int:
    """Where in its file the first number of a located tensor lies, in bytes."""
    storage = cast(Any, tensor.untyped_storage())
    return int(storage._checkpoint_offset + tensor.storage_offset() * tensor.element_size())


def _write_at(file: IO[bytes], place: Tensor, tensor: Tensor, row: int | None = None) -> None:
    target = place if row is None else place[row]
    assert (tensor.shape, tensor.dtype) == (target.shape, target.dtype), (tensor.shape, place.shape)
    start = _place(place) + (row or 0) * tensor.numel() * tensor.element_size()
    left = bytes_of(tensor)
    while left:
        written = os.pwrite(file.fileno(), left, start)
        left, start = left[written:], start + written


def _read_at(path: Path, place: Tensor) -> Tensor:
    """The numbers of a located tensor, which may be a view of a larger one."""
    if place.numel() == 0:
        return torch.empty(place.shape, dtype=place.dtype)
    steps = zip(place.shape, place.stride(), strict=True)
    span = 1 + sum((size - 1) * stride for size, stride in steps)
    flat = read_numbers(path, _place(place), span, place.dtype)
    return flat.as_strided(place.shape, place.stride())


def read_numbers(path: Path, start: int, count: int, dtype: torch.dtype) -> Tensor:
    """(count,) numbers of a file from byte `start` on.

    Raises:
        CheckpointError: the file ends before.
    """
    flat = torch.empty(count, dtype=dtype)
    left = bytes_of(flat)
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while left:
            number = file.readinto(left)
            if not number:
                raise CheckpointError(f"{path} must be whole, but is cut off. Fetch it again.")
            left = left[number:]
    return flat


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, without a copy if it is contiguous."""
    return memoryview(cast(Any, tensor.contiguous().reshape(-1).view(torch.uint8).numpy()))
