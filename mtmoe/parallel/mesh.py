"""The ranks as data x expert x tensor; one process is the mesh of one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import _set_pg_timeout, _world

from mtmoe.config import MeshConfig
from mtmoe.errors import LayoutError
from mtmoe.parallel.fitting import divisors, multiples_near

DATA, EXPERT, TENSOR, BATCH = "data", "expert", "tensor", "batch"  # names of axes


@dataclass(frozen=True)
class Axis:
    """One axis of the mesh, as the ranks along it see it."""

    size: int = 1
    rank: int = 0  # place of this process along the axis
    group: ProcessGroup | None = None  # None for a single process

    @property
    def name(self) -> str:
        """What collectives call the group; empty for a single process."""
        return self.group.group_name if self.group is not None else ""


ONE_RANK = Axis()


@dataclass(frozen=True)
class Mesh:
    """World = data x expert x tensor, tensor innermost, then expert, then data.

    Ranks of one tensor group read the same batch; all others read different ones.
    """

    data: Axis = ONE_RANK  # the copies of an expert
    expert: Axis = ONE_RANK  # ranks that own different experts
    tensor: Axis = ONE_RANK  # ranks that own slices of the same matrices
    batch: Axis = ONE_RANK  # data and expert together: ranks with different batches
    devices: DeviceMesh | None = None  # data x expert x tensor, for DTensor; None: one process
    batch_devices: DeviceMesh | None = None  # the same along `batch`
    deduplicate_tokens: bool = False  # see `MeshConfig`


ONE_PROCESS = Mesh()


def make_mesh(config: MeshConfig, device_type: str = "cpu") -> Mesh:
    """Lay the ranks of the default process group out; without one, the mesh of one process.

    Every rank must call it: making a group is a collective.

    Raises:
        LayoutError: the sizes do not divide the world.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    expert, tensor = config.expert_parallel_size, config.tensor_parallel_size
    product = expert * tensor
    if world % product:
        raise LayoutError(
            "expert_parallel_size * tensor_parallel_size must divide the number of ranks "
            f"({world}), but is {expert} * {tensor} = {product}. Choose sizes whose product is "
            f"{divisors(world, world)}, or start {multiples_near(world, product)} ranks."
        )
    if world == 1:
        return ONE_PROCESS
    shape = (world // product, expert, tensor)
    devices = init_device_mesh(device_type, shape, mesh_dim_names=(DATA, EXPERT, TENSOR))
    batch = devices[DATA, EXPERT]._flatten(BATCH)
    return Mesh(
        data=_axis(devices[DATA]),
        expert=_axis(devices[EXPERT]),
        tensor=_axis(devices[TENSOR]),
        batch=_axis(batch),
        devices=devices,
        batch_devices=batch,
        deduplicate_tokens=config.deduplicate_tokens,
    )


def limit_waiting(seconds: int) -> None:
    """How long a collective of any group waits for a rank, before it raises or ends the process."""
    if dist.is_initialized():
        for group in list(_world.pg_map):
            _set_pg_timeout(timedelta(seconds=seconds), group)


def is_first_rank() -> bool:
    """Whether this process is rank 0, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def _axis(devices: DeviceMesh) -> Axis:
    return Axis(devices.size(), devices.get_local_rank(), devices.get_group())
