"""Tensors of a new checkpoint that lie on the disk, so that memory does not grow with the model."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scratch:
    """Makes tensors in files without a name, which the system removes with the last user.

    `torch.save` reads them from there; anonymous memory holds what is being computed only.
    """

    folder: Path  # has room for the new tensors, until they are saved

    @staticmethod
    def beside(output: str | Path) -> Scratch:
        """In the folder of the file that will be written."""
        return Scratch(Path(os.path.realpath(output)).parent)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor of zeros, to be filled in place.

        Raises:
            OSError: the folder is not writable, or has no room.
        """
        size = math.prod(shape)
        if not size:
            return torch.empty(tuple(shape), dtype=dtype)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk would end the process while it writes
                os.posix_fallocate(file.fileno(), 0, size * dtype.itemsize)
            name = f"/dev/fd/{file.fileno()}"
            flat = torch.from_file(name, shared=True, size=size, dtype=dtype)
        return flat.view(tuple(shape))

    def select(self, tensor: Tensor, rows: Tensor) -> Tensor:
        """The rows (K,) int64 of `tensor`, (E, ...), in that order, copied one by one."""
        selected = self.empty((len(rows), *tensor.shape[1:]), tensor.dtype)
        for row, number in zip(selected, rows.tolist(), strict=True):
            row.copy_(tensor[number])
        return selected
