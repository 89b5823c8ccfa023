"""The ranks as data x expert x tensor; one process is the mesh of one."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from torch.distributed import ProcessGroup

from mtmoe.config import MeshConfig
from mtmoe.errors import LayoutError


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


def make_mesh(config: MeshConfig) -> Mesh:
    """Lay the ranks of the default process group out; without one, the mesh of one process.

    Every rank must call it: making a group is a collective.

    Raises:
        LayoutError: the sizes do not divide the world.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    expert, tensor = config.expert_parallel_size, config.tensor_parallel_size
    if world % (expert * tensor):
        raise LayoutError(
            "expert_parallel_size * tensor_parallel_size must divide the number of ranks "
            f"({world}), but is {expert} * {tensor} = {expert * tensor}. Start a multiple of that "
            "many ranks, or choose smaller sizes."
        )
    if not dist.is_initialized():
        return Mesh()
    shape = (world // (expert * tensor), expert, tensor)
    rank = dist.get_rank()
    return Mesh(
        data=_axis(rank, [_ranks(shape, None, e, t) for e in range(expert) for t in range(tensor)]),
        expert=_axis(
            rank, [_ranks(shape, d, None, t) for d in range(shape[0]) for t in range(tensor)]
        ),
        tensor=_axis(
            rank, [_ranks(shape, d, e, None) for d in range(shape[0]) for e in range(expert)]
        ),
        batch=_axis(rank, [_ranks(shape, None, None, t) for t in range(tensor)]),
    )


def _ranks(
    shape: tuple[int, int, int], data: int | None, expert: int | None, tensor: int | None
) -> list[int]:
    """The ranks whose coordinates are as given; None: any."""
    found = []
    for rank in range(shape[0] * shape[1] * shape[2]):
        place = (rank // (shape[1] * shape[2]), rank // shape[2] % shape[1], rank % shape[2])
        wanted = (data, expert, tensor)
        if all(w is None or w == p for w, p in zip(wanted, place, strict=True)):
            found.append(rank)
    return found


def _axis(rank: int, groups: list[list[int]]) -> Axis:
    """The one of `groups` that holds `rank`; all ranks make all groups, in the same order."""
    mine, found = ONE_RANK, [dist.new_group(ranks) for ranks in groups]
    for ranks, group in zip(groups, found, strict=True):
        if rank in ranks:
            mine = Axis(len(ranks), ranks.index(rank), group)
    return mine
