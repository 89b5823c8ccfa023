"""A parameter as the slice that this rank holds of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


def local_part(parameter: Tensor) -> Tensor:
    """What this rank computes with: the local tensor of a sharded parameter, else itself.

    Differentiable: the gradient becomes the same slice of the parameter's gradient.
    """
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def stored_part(tensor: Tensor) -> Tensor:
    """The memory that this rank holds of a parameter or gradient, without gradient tracking."""
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor.detach()


def axis_names(parameter: Tensor) -> set[str]:
    """The axes along which the parameter is a DTensor."""
    if not isinstance(parameter, DTensor):
        return set()
    return set(parameter.device_mesh.mesh_dim_names or ())


def slices_of(parameter: Tensor) -> tuple[slice, ...]:
    """Where this rank's part stands in the whole parameter, one slice a dim."""
    if not isinstance(parameter, DTensor):
        return tuple(slice(0, n) for n in parameter.shape)
    shape, offset = compute_local_shape_and_global_offset(
        parameter.shape, parameter.device_mesh, parameter.placements
    )
    return tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a tensor that lies, or will lie, as the parameter `like` does."""
    return whole if isinstance(whole, DTensor) else whole[slices_of(like)]


def num_copies(parameter: Tensor, world: int) -> int:
    """How many of the `world` ranks hold the same part of `parameter`."""
    if not isinstance(parameter, DTensor):
        return world
    mesh = parameter.device_mesh
    parts = 1
    for size, placement in zip(mesh.shape, parameter.placements, strict=True):
        parts *= size if isinstance(placement, Shard) else 1
    return world // parts


def gather_whole(local: Tensor, like: Tensor) -> Tensor:
    """The whole tensor out of the parts of all ranks. Collective where `like` is sharded.

    Args:
        local: this rank's part: of `like` itself, or of a tensor of its shape (optimizer state).
        like: the parameter, which says how the parts lie.
    """
    whole = wrap_part(local, like)
    return whole.full_tensor() if isinstance(whole, DTensor) else whole


def wrap_part(local: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a tensor, as a DTensor that lies as `like` does where that is one."""
    if not isinstance(like, DTensor):
        return local
    return DTensor.from_local(
        local,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def shard_parameter(
    module: nn.Module, name: str, dims: tuple[int | None, ...], mesh: DeviceMesh
) -> None:
    """Replace a parameter on the meta device by this rank's slice of it.

    Args:
        dims: for each axis of `mesh`, the dim that it shards, or None.
    """
    whole = getattr(module, name)
    placements = [Replicate() if dim is None else Shard(dim) for dim in dims]
    shape, _ = compute_local_shape_and_global_offset(whole.shape, mesh, placements)
    local = torch.empty(shape, dtype=whole.dtype, device="meta")
    sharded = DTensor.from_local(
        local, mesh, placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )
    setattr(module, name, nn.Parameter(sharded))
