"""Binarised text of fairseq's mmap format: checked once, opened when a sentence is read."""

from __future__ import annotations

import functools
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtmoe.errors import DataError
from mtmoe.files import check_input

HEADER = struct.Struct("<9sQBQ")  # of an index: magic, version, code of the numbers' type, count
MAGIC = (b"MMIDIDX\0\0", 1)
LENGTH_BYTES, PLACE_BYTES = 4, 8  # of a sentence, in an index
TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2", 9: "<u4", 10: "<u8"}
MAX_OPEN = 128  # files of text; as many indices beside them


class MmapText:
    """Sentences of one file pair; each ends with EOS.

    Only the lengths are read at birth (4 bytes a sentence); thousands of files may exist at once.

    Args:
        prefix: the path without `.idx` and `.bin`.

    Raises:
        DataError: a file is missing, damaged or empty; names it.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = str(prefix)
        index, text = f"{self.prefix}.idx", f"{self.prefix}.bin"
        for path in (index, text):
            check_input("binarised text", path)
        with open(index, "rb") as file:
            code, count = _read_head(file, index)
            _check_size(index, HEADER.size + (LENGTH_BYTES + PLACE_BYTES) * count)
            self.sizes: NDArray[np.int32] = np.fromfile(file, np.int32, count)  # (size,)
        self.dtype = np.dtype(TYPES[code])
        _check_size(text, self.dtype.itemsize * int(self.sizes.sum(dtype=np.int64)))
        if not count:
            raise DataError(f"{text} must hold sentences, but is empty. Give text of this split.")

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, row: int) -> Tensor:
        """The ids of a sentence, (n,) int64."""
        places, numbers = _open(self.prefix, len(self.sizes), self.dtype.str)
        first = int(places[row]) // self.dtype.itemsize
        return torch.from_numpy(numbers[first : first + int(self.sizes[row])].astype(np.int64))


def count_sentences(prefix: str | Path) -> int:
    """The number of sentences of a text, by its index alone.

    Raises:
        DataError: there is no index, or it is damaged.
    """
    index = f"{prefix}.idx"
    check_input("binarised text", index)
    with open(index, "rb") as file:
        return _read_head(file, index)[1]


def _read_head(file: BinaryIO, index: str) -> tuple[int, int]:
    """The code of the numbers' type, and the count of sentences."""
    head = file.read(HEADER.size)
    magic, version, code, count = HEADER.unpack(head) if len(head) == HEADER.size else (b"",) * 4
    if (magic, version) != MAGIC or code not in TYPES:
        raise DataError(
            f"{index} must be an index of fairseq's mmap format, but is not. "
            "Binarise the text again."
        )
    return code, count


@functools.lru_cache(MAX_OPEN)
def _open(prefix: str, count: int, dtype: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places (in bytes) and the numbers of a text, mapped into memory."""
    start = HEADER.size + LENGTH_BYTES * count
    places = np.memmap(f"{prefix}.idx", "<i8", "r", start, (count,))
    return places, np.memmap(f"{prefix}.bin", dtype, "r")


def _check_size(path: str, wanted: int) -> None:
    found = Path(path).stat().st_size
    if found != wanted:
        raise DataError(
            f"{path} must have {wanted} bytes, as its index says, but has {found}. "
            "Binarise the text again."
        )
