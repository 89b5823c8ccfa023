"""What FSDP2 and all-reduces send is counted, and our operators are not counted twice."""

from __future__ import annotations

import torch
import torch._dynamo  # FSDP2 imports it, which takes seconds: before ranks fork
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from mtmoe.config import MeshConfig
from mtmoe.parallel.collectives import count_traffic, max_over, sum_over
from mtmoe.parallel.engine_traffic import EngineTraffic
from mtmoe.parallel.mesh import make_mesh
from tests.ranks import run_ranks

FLOAT = 4  # bytes


def check_counts():
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = fully_shard(nn.Linear(8, 6, bias=False), mesh=mesh)
    axis = make_mesh(MeshConfig(tensor_parallel_size=2)).tensor
    with count_traffic() as traffic, EngineTraffic(traffic):
        model(torch.ones(3, 8)).sum().backward()
        dist.all_reduce(torch.ones(10))
        sum_over(torch.ones(2), axis)
        max_over(torch.ones(2), axis)
    half = 8 * 6 * FLOAT // 2
    assert traffic.sent_bytes == {
        "engine all_gather": half,
        "engine reduce_scatter": half,
        "engine all_reduce": 2 * 10 * FLOAT // 2,
        "all_reduce": 2 * 2 * FLOAT,
    }
    assert dict(traffic.calls) == {name: 1 for name in traffic.calls} | {"all_reduce": 2}


def test_each_collective_is_counted_once():
    run_ranks(check_counts, 2)
