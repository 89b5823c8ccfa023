"""Ranks on the mesh of the design."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from mtmoe.config import MeshConfig
from mtmoe.errors import ConfigError, LayoutError
from mtmoe.parallel.mesh import Mesh, make_mesh
from tests.ranks import run_ranks


def members(axis):
    return [] if axis.group is None else dist.get_process_group_ranks(axis.group)


def check_mesh_of_eight():
    mesh, rank = make_mesh(MeshConfig(2, 2)), dist.get_rank()
    d, e, t = rank // 4, rank // 2 % 2, rank % 2
    assert members(mesh.tensor) == [d * 4 + e * 2, d * 4 + e * 2 + 1]
    assert members(mesh.expert) == [d * 4 + t, d * 4 + 2 + t]
    assert members(mesh.data) == [e * 2 + t, 4 + e * 2 + t]
    assert members(mesh.batch) == [t, 2 + t, 4 + t, 6 + t]
    places = [axis.rank for axis in (mesh.data, mesh.expert, mesh.tensor, mesh.batch)]
    assert places == [d, e, t, d * 2 + e]


def check_sizes_that_do_not_divide():
    with pytest.raises(LayoutError, match=r"must divide the number of ranks \(4\), but is 3 \* 1"):
        make_mesh(MeshConfig(expert_parallel_size=3))


def test_tensor_is_innermost_then_expert_then_data():
    run_ranks(check_mesh_of_eight, 8)


def test_sizes_that_do_not_divide_the_world_are_refused():
    run_ranks(check_sizes_that_do_not_divide, 4)
    with pytest.raises(LayoutError, match=r"ranks \(1\), but is 1 \* 2"):
        make_mesh(MeshConfig(tensor_parallel_size=2))
    with pytest.raises(ConfigError, match="expert_parallel_size must be at least 1, but is 0"):
        MeshConfig(expert_parallel_size=0)


def test_one_process_is_the_mesh_of_one():
    assert make_mesh(MeshConfig()) == Mesh()
