"""Gradients over the mesh: averaged over batches, and one norm that counts each number once."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from mtmoe.parallel.mesh import BATCH, DATA, EXPERT, Axis, Mesh
from mtmoe.parallel.slices import axis_names, num_copies, stored_part

BUCKET_BYTES = 32 << 20


def reduce_gradients(parameters: Iterable[Tensor], mesh: Mesh) -> None:
    """Average the gradients over the ranks with different batches, in place.

    An expert's gradient is summed over its copies, and divided by the number of all batches, as
    every other one: it then does not depend on the layout. What ZeRO shards has been reduced in the
    backward pass. Every rank must call it, with the same parameters.
    """
    if mesh.batch.size == 1:
        return
    groups: dict[str, list[Tensor]] = {BATCH: [], DATA: []}
    alone = []  # gradients of experts that FSDP2 holds, though each has one copy only
    for parameter in parameters:
        names = axis_names(parameter)
        if DATA in names and mesh.data.size == 1 and parameter.grad is not None:
            alone.append(stored_part(parameter.grad))
        if not parameter.requires_grad or {BATCH, DATA} & names:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        groups[DATA if EXPERT in names else BATCH].append(stored_part(parameter.grad))
    _sum_over(groups[BATCH], mesh.batch)
    _sum_over(groups[DATA], mesh.data)
    gradients = [*groups[BATCH], *groups[DATA], *alone]
    if gradients:
        torch._foreach_div_(gradients, float(mesh.batch.size))


def _sum_over(gradients: list[Tensor], axis: Axis) -> None:
    """All-reduce in buckets of one dtype, so that small ones share a message."""
    if axis.size == 1:
        return
    bucket: list[Tensor] = []
    for number, gradient in enumerate(gradients):
        bucket.append(gradient)
        following = gradients[number + 1 : number + 2]
        is_full = sum(g.numel() * g.element_size() for g in bucket) >= BUCKET_BYTES
        if is_full or not following or following[0].dtype != gradient.dtype:
            _sum_bucket(bucket, axis)
            bucket = []


def _sum_bucket(bucket: list[Tensor], axis: Axis) -> None:
    if len(bucket) == 1 and bucket[0].is_contiguous():
        dist.all_reduce(bucket[0], group=axis.group)
        return
    flat = torch.cat([gradient.flatten() for gradient in bucket])
    dist.all_reduce(flat, group=axis.group)
    parts = torch.split(flat, [gradient.numel() for gradient in bucket])
    for gradient, part in zip(bucket, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))


def gradient_norm(parameters: Iterable[Tensor], mesh: Mesh) -> Tensor:
    """The norm of the whole model's gradient, () float64 or float32, equal on all ranks.

    A number that several ranks hold counts once (fairseq's MoE branch counts each copy). Every
    rank must call it.
    """
    parts = [(p, stored_part(p.grad)) for p in parameters if p.grad is not None]
    if mesh.devices is None:
        return torch.nn.utils.get_total_norm([gradient for _, gradient in parts])
    world = dist.get_world_size()
    device = torch.device(mesh.devices.device_type)  # gradients may be in host memory
    total = torch.zeros((), dtype=torch.float64, device=device)
    for parameter, gradient in parts:
        norm = torch.linalg.vector_norm(gradient).double()
        total += norm.square().to(device) / num_copies(parameter, world)
    dist.all_reduce(total)
    return total.sqrt()
