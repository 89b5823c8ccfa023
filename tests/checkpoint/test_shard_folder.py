"""Folders of shards: whole or not at all, read safely, any slice of them."""

from __future__ import annotations

import os
import pickle
import resource
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from mtmoe.checkpoint.shard_folder import METADATA, ShardFolder
from mtmoe.checkpoint.sharded import write_folder
from mtmoe.errors import CheckpointError
from tests.ranks import run_ranks

WHOLE = torch.arange(7 * 6, dtype=torch.float32).view(7, 6)
TENSORS = {
    "model.a": WHOLE,
    "model.half": WHOLE.bfloat16(),
    "model.one": torch.tensor(3.0),
    "model.none": torch.empty(0, 4),
}


def write_on_ranks(folder, dim):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    size = -(-WHOLE.shape[dim] // dist.get_world_size())
    local = WHOLE.split(size, dim)[dist.get_rank()]
    sharded = DTensor.from_local(
        local, mesh, [Shard(dim)], run_check=False, shape=WHOLE.shape, stride=WHOLE.stride()
    )
    write_folder(folder, {"model.a": sharded, "model.same": WHOLE})


@pytest.mark.parametrize("dim", [0, 1])
def test_any_slice_is_that_of_the_whole(tmp_path, dim):
    run_ranks(write_on_ranks, 3, tmp_path / "x", dim)
    folder = ShardFolder(tmp_path / "x")
    assert torch.equal(folder.read("model.a"), WHOLE)
    assert torch.equal(folder.read("model.same"), WHOLE)
    for start in range(7):
        for stop in range(start, 8):
            where = (slice(start, stop), slice(1, 5))
            assert torch.equal(folder.read("model.a", where), WHOLE[where])
    assert len(list((tmp_path / "x").glob("*.distcp"))) == 3, "each rank writes its own file"


def test_what_is_written_is_read(tmp_path):
    write_folder(tmp_path / "x", TENSORS)
    folder = ShardFolder(tmp_path / "x")
    assert list(folder.shapes("model.")) == [name.removeprefix("model.") for name in TENSORS]
    for name, stored in folder.stored_tensors("model.").items():
        expected = TENSORS[f"model.{name}"]
        assert (stored.shape, stored.dtype) == (tuple(expected.shape), expected.dtype)
        assert torch.equal(stored.read(), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["x"], "nothing else is left"


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_pytorch_reads_the_folder_too(tmp_path):
    write_folder(tmp_path / "x", TENSORS)
    found = {"model.a": torch.zeros(7, 6)}
    torch.distributed.checkpoint.load(found, checkpoint_id=tmp_path / "x", no_dist=True)
    assert torch.equal(found["model.a"], WHOLE)


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def edit_metadata(folder: Path, change) -> None:
    metadata = pickle.loads((folder / METADATA).read_bytes())
    change(metadata)
    (folder / METADATA).write_bytes(pickle.dumps(metadata))


def test_code_in_the_metadata_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "x", TENSORS)
    edit_metadata(tmp_path / "x", lambda found: setattr(found, "planner_data", Evil()))
    with pytest.raises(CheckpointError, match=r"names posix\.system, which could run code"):
        ShardFolder(tmp_path / "x")
    assert not (tmp_path / "pwned").exists()


def test_no_file_outside_the_folder_is_read(tmp_path):
    write_folder(tmp_path / "x", TENSORS)

    def lead_away(metadata):
        for place in metadata.storage_data.values():
            place.relative_path = "../" + place.relative_path

    edit_metadata(tmp_path / "x", lead_away)
    with pytest.raises(CheckpointError, match=r"must lie in it, but '\.\./__0_0\.distcp' does not"):
        ShardFolder(tmp_path / "x")


def cut_data(folder):
    path = folder / "__0_0.distcp"
    os.truncate(path, path.stat().st_size // 3)


DAMAGES = {
    "must be a whole folder of a checkpoint, but lacks .metadata": lambda f: (
        f / METADATA
    ).unlink(),
    "must be whole, but lacks __0_0.distcp": lambda f: (f / "__0_0.distcp").unlink(),
    "must describe tensors, but is damaged": lambda f: os.truncate(f / METADATA, 100),
    "is cut off or damaged": cut_data,
}


@pytest.mark.parametrize("message", list(DAMAGES))
def test_a_damaged_folder_is_one_sentence(tmp_path, message):
    write_folder(tmp_path / "x", TENSORS)
    DAMAGES[message](tmp_path / "x")
    with pytest.raises(CheckpointError, match=message):
        [ShardFolder(tmp_path / "x").read(name) for name in TENSORS]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="rank 0: No space left on device"):
        write_folder(tmp_path / "x", TENSORS)
    assert list(tmp_path.iterdir()) == []


def write_beyond_the_limit(path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="rank 0: File too large"):
            write_folder(path, {"model.large": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_that_cannot_grow_is_named_to_all_ranks(tmp_path):
    run_ranks(write_beyond_the_limit, 2, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
