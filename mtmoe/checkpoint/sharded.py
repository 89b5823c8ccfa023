"""Sharded checkpoints: a small `.pt` of fairseq's that names a folder which all ranks have written.

    checkpoints/checkpoint_last.pt          all of fairseq's bookkeeping, no weights
    checkpoints/shards/00000500-9f3a2c1d/   weights and optimizer state, in PyTorch's DCP format

fairseq copies, keeps and deletes the small file as it always does; a folder that no file names any
more is removed. Each folder also holds a copy of its file, so it can be copied and used alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from mtmoe.checkpoint.fairseq_file import (
    BOOKKEEPING,
    SHARDS,
    check_readable,
    file_of,
    shards_name,
)
from mtmoe.checkpoint.shard_folder import METADATA, MODEL, OPTIMIZER, ShardFolder, StoredAdam
from mtmoe.errors import CheckpointError
from mtmoe.files import open_atomic, sync_folder
from mtmoe.parallel.mesh import is_first_rank
from mtmoe.parallel.slices import slices_of, stored_part

Nested = dict[str, Any]
NAMES = "names"  # key of the weights' order in a sharded checkpoint
DIGEST = "vocabulary_digest"  # the only weight that stays in the `.pt`


class ShardWriter(FileSystemWriter):
    """PyTorch's writer, whose failures are the files' own.

    torch's zip writer puts its error over the file's, and between ranks the lower one is lost.
    """

    def write_data(self, *args: Any) -> Any:
        """Write this rank's parts.

        Raises:
            OSError: the disk is full or the folder is not writable.
        """
        try:
            return super().write_data(*args)
        except RuntimeError as error:
            cause = error.__context__
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            raise cause or error from None


def write_shards(save_dir: str | Path, step: int, tensors: Mapping[str, Tensor]) -> str:
    """Write a new folder of `save_dir` in parallel; every rank must call it.

    Args:
        step: number of updates, for the name.
        tensors: each rank's parts; what several ranks hold is written once.

    Returns:
        The folder's name, equal on all ranks.

    Raises:
        OSError: the disk is full or the folder is not writable, on any rank.
    """
    name = [f"{step:08d}-{secrets.token_hex(4)}"]
    if dist.is_initialized():
        dist.broadcast_object_list(name, src=0)
    write_folder(Path(save_dir) / SHARDS / name[0], tensors)
    return name[0]


def write_folder(
    path: Path, tensors: Mapping[str, Tensor], finish: Callable[[Path], None] | None = None
) -> None:
    """Write the whole folder or none; every rank must call it. See `write_shards`.

    Args:
        finish: called on rank 0 with the folder before it gets its name.
    """
    part = path.with_name(f".{path.name}.part")
    is_first = is_first_rank()
    if not dist.is_initialized():
        shutil.rmtree(part, ignore_errors=True)  # of a conversion that was killed
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process
            save(
                dict(tensors),
                storage_writer=ShardWriter(part, sync_files=True),
                planner=DefaultSavePlanner(flatten_state_dict=False),
                no_dist=not dist.is_initialized(),
            )
        if is_first:  # all ranks have written and synchronised their files by now
            if finish is not None:
                finish(part)
            sync_folder(part)
            os.rename(part, path)
            sync_folder(path.parent)
    except BaseException as error:
        if is_first:
            shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, CheckpointException):
            _raise_cause(error)
        raise


def model_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model's state under their names in the folder."""
    return {MODEL + name: tensor for name, tensor in state.items()}


def split_adam(state: Nested) -> tuple[Nested, dict[str, Tensor]]:
    """The state of Adam as what stays in the `.pt`, and the tensors of the folder by their names.

    Args:
        state: as `torch.optim.Adam` lays it out; tensors without a dim are numbers of steps.
    """
    small: dict[int, Nested] = {}
    large: dict[str, Tensor] = {}
    for number, values in sorted(state["state"].items()):
        small[number] = {}
        for key, value in values.items():
            if isinstance(value, Tensor) and value.dim() > 0:
                large[f"{OPTIMIZER}{number}.{key}"] = value
            else:
                small[number][key] = value.cpu().clone() if isinstance(value, Tensor) else value
    return {**state, "state": small}, large


def complete_folder(path: str | Path) -> None:
    """Put a copy of a sharded checkpoint's `.pt` into its folder."""
    state = check_readable(path)
    folder = folder_of(path, state)
    if folder is not None:
        with open(path, "rb") as source, open_atomic(folder / BOOKKEEPING, "wb") as target:
            shutil.copyfileobj(source, target)


def folder_of(path: str | Path, state: Mapping[str, Any]) -> Path | None:
    """The folder of the checkpoint `path`, None if that is gathered; it may be missing.

    A copy of the `.pt` inside the folder means the folder that it lies in.
    """
    name = shards_name(state)
    if name is None:
        return None
    here = Path(path).parent
    return here if (here / METADATA).exists() else here / SHARDS / name


def stored_bytes(path: str | Path) -> int:
    """What a checkpoint takes on the disk, its folder of shards included."""
    file = Path(file_of(path))
    folder = folder_of(file, check_readable(file))
    shards = [] if folder is None else [part for part in folder.iterdir() if part != file]
    return sum(part.stat().st_size for part in (file, *shards))


def open_shards(path: str | Path, state: Mapping[str, Any]) -> ShardFolder | None:
    """The tensors of the checkpoint `path`, None if that is gathered.

    Raises:
        CheckpointError: the folder is missing or not whole.
    """
    folder = folder_of(path, state)
    return None if folder is None else ShardFolder(folder)


@torch.no_grad()
def read_weights(model: nn.Module, folder: ShardFolder) -> None:
    """Copy this rank's part of each weight out of a folder into `model`.

    Raises:
        CheckpointError: the folder is not whole or damaged.
    """
    own, stored = model.state_dict(), folder.shapes(MODEL)
    if own.keys() != stored.keys():
        raise KeyError(f"state differs in {sorted(own.keys() ^ stored.keys())}")
    for name, tensor in own.items():
        stored_part(tensor).copy_(folder.read(MODEL + name, slices_of(tensor)))


def gathered_state(path: str | Path, state: Nested) -> Nested:
    """A sharded checkpoint's state with its weights, as one of a gathered file.

    The optimizer's averages are read from the folder when they are asked for.

    Raises:
        CheckpointError: the folder is missing, not whole or damaged.
    """
    folder = open_shards(path, state)
    assert folder is not None, "the checkpoint is sharded"
    weights = {name: folder.read(MODEL + name) for name in state["model"][NAMES]}
    found = {**state, "model": weights}
    if "last_optimizer_state" in state:
        adam = state["last_optimizer_state"]
        stored = StoredAdam(folder, adam["state"])
        plain = {key: value for key, value in adam.items() if key != SHARDS}
        found["last_optimizer_state"] = {**plain, "state": stored}
    return found


def stub_of_model(name: str, state: Mapping[str, Tensor]) -> Nested:
    """What a sharded `.pt` holds in place of the weights.

    Args:
        name: the folder's.
        state: the model's, for the order of the names and the vocabulary's checksum.
    """
    found: Nested = {SHARDS: name, NAMES: list(state)}
    if DIGEST in state:
        found[DIGEST] = state[DIGEST].cpu().clone()
    return found


def remove_unused(save_dir: str | Path) -> None:
    """Remove the folders that no `.pt` of `save_dir` names, half-written ones included.

    No save must be going on.
    """
    root = Path(save_dir) / SHARDS
    if not root.is_dir():
        return
    used = set()
    for path in Path(save_dir).glob("*.pt"):
        with contextlib.suppress(CheckpointError):  # a damaged file is of no use itself
            used.add(shards_name(check_readable(path)))
    for folder in root.iterdir():
        if folder.name not in used:
            shutil.rmtree(folder, ignore_errors=True)


def _raise_cause(error: CheckpointException) -> NoReturn:
    """Raise what went wrong on the first rank that failed."""
    rank, (cause, _) = next(iter(error.failures.items()))
    if isinstance(cause, OSError):
        raise OSError(cause.errno, f"rank {rank}: {cause.strerror}", cause.filename) from None
    raise cause
