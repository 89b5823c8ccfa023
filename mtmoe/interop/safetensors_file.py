"""safetensors files: a header of JSON, then the numbers; read and written tensor by tensor."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from mtmoe.checkpoint.tensor_stream import StoredTensor, bytes_of, read_numbers
from mtmoe.errors import CheckpointError

LENGTH_BYTES = 8  # of the header, little-endian
MAX_HEADER = 100_000_000  # bytes; the format's own limit
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, to be read one by one.

    Raises:
        CheckpointError: the file is cut off or is no safetensors file; names the tensor, if known.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 2 <= length <= min(MAX_HEADER, size - LENGTH_BYTES):
            raise _damaged(path, f"its header of {length} bytes does not fit its {size} bytes")
        text = file.read(length)
    try:
        header = json.loads(text)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, AttributeError, RecursionError):
        raise _damaged(path, "its header is no JSON object") from None
    start = LENGTH_BYTES + length
    return {name: _entry(path, name, entry, start, size) for name, entry in entries.items()}


def _entry(path: Path, name: str, entry: Any, start: int, size: int) -> StoredTensor:
    try:
        dtype, shape = DTYPES[entry["dtype"]], tuple(int(n) for n in entry["shape"])
        begin, end = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise _damaged(path, f"the header's entry of {name} is not understood: {entry}") from None
    count = math.prod(shape)
    if min((*shape, begin), default=0) < 0 or end - begin != count * dtype.itemsize:
        raise _damaged(path, f"{name} of shape {shape} does not fit its bytes {begin} to {end}")
    if start + end > size:
        raise _damaged(path, f"{name} ends at byte {start + end}, and the file has {size}")
    return StoredTensor(
        shape, dtype, path, lambda: read_numbers(path, start + begin, count, dtype).view(shape)
    )


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} must be a whole safetensors file, but {why}. It is cut off or damaged: fetch it "
        "again."
    )


def write_tensors(
    file: IO[bytes],
    specs: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
    tensors: Iterable[Tensor],
) -> None:
    """Write a safetensors file.

    Args:
        specs: shape and dtype of each tensor.
        tensors: in the order of `specs`; one is held at a time.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, (shape, dtype) in specs.items():
        end = begin + spec_bytes(shape, dtype)
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
    for (name, (shape, dtype)), tensor in zip(specs.items(), tensors, strict=True):
        assert (tuple(tensor.shape), tensor.dtype) == (shape, dtype), (name, tensor.shape, shape)
        file.write(bytes_of(tensor))


def spec_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """The bytes that a tensor takes."""
    return math.prod(shape) * dtype.itemsize
