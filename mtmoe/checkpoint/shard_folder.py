"""A folder of `torch.distributed.checkpoint`, read tensor by tensor; code inside is never run.

PyTorch's own reader unpickles the folder's `.metadata` freely, which could run code. Here, only
the classes that describe tensors can come out of it, and it can name no file outside the folder.
The tensors themselves are read with `weights_only=True`.
"""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.utils import _create_file_view

from mtmoe.checkpoint.tensor_stream import StoredTensor
from mtmoe.errors import CheckpointError
from mtmoe.parallel.slices import slices_of, wrap_part

METADATA = ".metadata"  # PyTorch's name; written last, so a folder without it is not whole
MODEL, OPTIMIZER = "model.", "optimizer."  # what names of tensors begin with
SAFE_NAMES = {
    "torch.distributed.checkpoint.metadata": {
        "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath"},
    "pathlib._local": {"Path", "PosixPath", "PurePosixPath"},
    "collections": {"OrderedDict"},
}  # fmt: skip
Where = Sequence[slice]  # of a tensor, one slice a dim


class ShardFolder:
    """Names, shapes and numbers of the tensors in a folder, in the order of writing.

    Raises:
        CheckpointError: the folder is not there, not whole, or holds other objects than tensors.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with open(self.path / METADATA, "rb") as file:
                found = _Unpickler(file).load()
            self._tensors: dict[str, Any] = dict(found.state_dict_metadata)
            self._places: dict[MetadataIndex, Any] = dict(found.storage_data)
            self._check_places()
        except FileNotFoundError:
            raise CheckpointError(
                f"{self.path} must be a whole folder of a checkpoint, but lacks {METADATA}: the "
                "save was ended, or the folder was moved. Give another checkpoint."
            ) from None
        except CheckpointError:
            raise
        except Exception as error:  # noqa: BLE001  (damaged bytes can raise anything)
            raise CheckpointError(
                f"{self.path / METADATA} must describe tensors, but is damaged "
                f"({type(error).__name__}). Give another checkpoint."
            ) from None

    def _check_places(self) -> None:
        names = {place.relative_path for place in self._places.values()}
        for name in sorted(names):
            if Path(name).name != name:
                raise CheckpointError(
                    f"files of {self.path} must lie in it, but {name!r} does not. The checkpoint "
                    "is not one of ours; do not use it."
                )
            if not (self.path / name).is_file():
                raise CheckpointError(f"{self.path} must be whole, but lacks {name}. Copy it anew.")

    def shapes(self, prefix: str) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of the tensors whose names begin with `prefix`, without it."""
        return {
            name.removeprefix(prefix): (tuple(found.size), found.properties.dtype)
            for name, found in self._tensors.items()
            if name.startswith(prefix)
        }

    def stored_tensors(self, prefix: str) -> dict[str, StoredTensor]:
        """The same, to be read one by one."""
        found = {}
        for name, (shape, dtype) in self.shapes(prefix).items():
            full = prefix + name
            found[name] = StoredTensor(shape, dtype, self.path, lambda full=full: self.read(full))  # type: ignore[misc]
        return found

    def read(self, name: str, where: Where | None = None) -> Tensor:
        """A tensor, or the part `where` of it, on the CPU.

        Memory holds this part and one stored chunk, which is what one rank had of the tensor.

        Raises:
            CheckpointError: a file is cut off or damaged.
        """
        found = self._tensors[name]
        if where is None:
            where = [slice(0, size) for size in found.size]
        shape = [part.stop - part.start for part in where]
        out = torch.empty(shape, dtype=found.properties.dtype)
        for chunk in found.chunks:
            common = _overlap(where, chunk.offsets, chunk.sizes)
            if common is None:
                continue
            part = self._read_chunk(MetadataIndex(name, chunk.offsets))
            if list(part.shape) == shape and common == list(where):
                return part
            here = tuple(
                slice(c.start - w.start, c.stop - w.start)
                for c, w in zip(common, where, strict=True)
            )
            there = tuple(
                slice(c.start - o, c.stop - o) for c, o in zip(common, chunk.offsets, strict=True)
            )
            out[here] = part[there]
        return out

    def read_like(self, name: str, like: Tensor) -> Tensor:
        """The part of a tensor that this rank holds of the parameter `like`, laid out as that."""
        return wrap_part(self.read(name, slices_of(like)), like)

    def _read_chunk(self, index: MetadataIndex) -> Tensor:
        place = self._places[index]
        path = self.path / place.relative_path
        try:
            with open(path, "rb") as file:
                view: Any = _create_file_view(file, place.offset, place.length)
                tensor: Tensor = torch.load(view, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001  (damaged bytes can raise anything)
            raise CheckpointError(
                f"{path} must be whole, but {index.fqn} in it is cut off or damaged "
                f"({type(error).__name__}). Give another checkpoint."
            ) from None
        return tensor


class StoredAdam(Mapping[int, dict[str, Any]]):
    """The optimizer's state by parameter, whose averages are read when they are asked for.

    Args:
        small: what the `.pt` holds of each parameter: the number of steps.
        likes: the parameters, of which this rank reads its parts; None: whole tensors.
    """

    def __init__(
        self,
        folder: ShardFolder,
        small: Mapping[int, Mapping[str, Any]],
        likes: Sequence[Tensor] | None = None,
    ) -> None:
        self._folder, self._small, self._likes = folder, small, likes
        self._keys: dict[int, list[str]] = defaultdict(list)
        for name in folder.shapes(OPTIMIZER):
            number, _, key = name.partition(".")
            self._keys[int(number)].append(key)

    def __getitem__(self, number: int) -> dict[str, Any]:
        found = dict(self._small[number])
        for key in self._keys[number]:
            name = f"{OPTIMIZER}{number}.{key}"
            if self._likes is None:
                found[key] = self._folder.read(name)
            else:
                found[key] = self._folder.read_like(name, self._likes[number])
        return found

    def __iter__(self) -> Iterator[int]:
        return iter(self._small)

    def __len__(self) -> int:
        return len(self._small)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = getattr(torch, name, None) if module == "torch" else None
        if name in SAFE_NAMES.get(module, ()) or isinstance(found, torch.dtype):
            return super().find_class(module, name)
        raise CheckpointError(
            f"{METADATA} must describe tensors only, but names {module}.{name}, which could run "
            "code and is never read. Do not use this checkpoint."
        )


def _overlap(where: Where, offsets: Sequence[int], sizes: Sequence[int]) -> list[slice] | None:
    """What a chunk has of `where`; None: nothing."""
    common = [
        slice(max(part.start, offset), min(part.stop, offset + size))
        for part, offset, size in zip(where, offsets, sizes, strict=True)
    ]
    return common if all(part.start < part.stop for part in common) else None
