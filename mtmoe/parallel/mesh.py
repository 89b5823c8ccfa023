"""The ranks as data x expert x tensor; one process is the mesh of one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import _set_pg_timeout, _world

from mtmoe.config import AllToAll, MeshConfig, StateLocation
from mtmoe.errors import LayoutError
from mtmoe.parallel.fitting import divisors, multiples_near

DATA, EXPERT, TENSOR, BATCH = "data", "expert", "tensor", "batch"  # names of axes
OWNERS = "owners"


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
    joint: Axis | None = None  # expert and tensor together, where each rank owns whole experts
    steps: tuple[Axis, Axis] | None = None  # (node, across) of `owners`: all-to-all in two steps
    deduplicate_tokens: bool = False  # see `MeshConfig`
    shard_tokens: bool = False
    has_host_parameters: bool = False

    @property
    def owners(self) -> Axis:
        """The ranks that own different experts."""
        return self.joint or self.expert

    @property
    def slices(self) -> Axis:
        """The ranks that own slices of the same experts."""
        return ONE_RANK if self.joint else self.tensor

    @property
    def has_exchange(self) -> bool:
        """Whether rows leave the rank for their experts."""
        return self.owners.size > 1 or (self.shard_tokens and self.tensor.size > 1)


ONE_PROCESS = Mesh()


def make_mesh(config: MeshConfig, device_type: str = "cpu") -> Mesh:
    """Lay the ranks of the default process group out; without one, the mesh of one process.

    Every rank must call it: making a group is a collective.

    Raises:
        LayoutError: the sizes do not divide the world, nodes do not divide the experts' ranks, or
            one process is to keep parameters in host memory.
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
        if config.parameter_location is StateLocation.host:
            raise LayoutError(
                "parameter_location must be device in one process, but is host. Start several "
                "ranks by torchrun, or use --state-location host."
            )
        return ONE_PROCESS
    shape = (world // product, expert, tensor)
    devices = init_device_mesh(device_type, shape, mesh_dim_names=(DATA, EXPERT, TENSOR))
    batch = devices[DATA, EXPERT]._flatten(BATCH)
    is_joint = config.whole_experts and tensor > 1
    return Mesh(
        data=_axis(devices[DATA]),
        expert=_axis(devices[EXPERT]),
        tensor=_axis(devices[TENSOR]),
        batch=_axis(batch),
        devices=devices,
        batch_devices=batch,
        joint=_axis(devices[EXPERT, TENSOR]._flatten(OWNERS)) if is_joint else None,
        steps=_two_steps(config, device_type, *_shape_of_owners(shape, is_joint)),
        deduplicate_tokens=config.deduplicate_tokens,
        shard_tokens=config.shard_tokens,
        has_host_parameters=config.parameter_location is StateLocation.host,
    )


def limit_waiting(seconds: int) -> None:
    """How long a collective of any group waits for a rank, before it raises or ends the process."""
    if dist.is_initialized():
        for group in list(_world.pg_map):
            _set_pg_timeout(timedelta(seconds=seconds), group)


def is_first_rank() -> bool:
    """Whether this process is rank 0, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def _shape_of_owners(shape: tuple[int, int, int], is_joint: bool) -> tuple[int, int, int]:
    """Copies of an expert, its owners, and its slices."""
    copies, expert, tensor = shape
    return (copies, expert * tensor, 1) if is_joint else shape


def _two_steps(
    config: MeshConfig, device_type: str, copies: int, owners: int, slices: int
) -> tuple[Axis, Axis] | None:
    """The owners on one node, and those with the same place on each node; None for one step."""
    if config.all_to_all is AllToAll.flat:
        return None
    node_size = config.node_size or int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    on_node = node_size // slices
    if node_size % slices or owners % min(on_node, owners):
        raise LayoutError(
            f"node_size must be a multiple of {slices} that divides {owners * slices}, the ranks "
            f"that share the experts out, but is {node_size}. Choose another one, or "
            "--all-to-all flat."
        )
    if on_node == 1 or on_node >= owners:  # each step would be the whole way
        return None
    shape, names = (copies, owners // on_node, on_node, slices), (DATA, "across", "node", "slice")
    devices = init_device_mesh(device_type, shape, mesh_dim_names=names)
    return _axis(devices["node"]), _axis(devices["across"])


def _axis(devices: DeviceMesh) -> Axis:
    return Axis(devices.size(), devices.get_local_rank(), devices.get_group())
