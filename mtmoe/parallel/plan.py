"""Which parameter is sharded over which axis, and the step that does it.

| parameters | tensor axis | expert axis | data axis |
| --- | --- | --- | --- |
| attention, dense FFN, embedding | by `tensor_dims` | ZeRO over data x expert | ZeRO |
| router, norms | replicated | ZeRO over data x expert | ZeRO |
| experts | by `tensor_dims`, or owned | each rank owns E / size | ZeRO over data |

A module says by a class attribute `tensor_dims` which dim of which parameter the tensor axis
shards; one that also has `holds_experts` stacks experts along dim 0.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from mtmoe.config import Zero
from mtmoe.parallel.mesh import BATCH, DATA, EXPERT, TENSOR, Mesh
from mtmoe.parallel.slices import axis_names, shard_parameter


def parallelize(root: nn.Module, units: Iterable[nn.Module], mesh: Mesh, zero: Zero) -> None:
    """Turn the parameters of `root`, on the meta device, into this rank's slices, still without
    memory.

    Every rank must call it.

    Args:
        units: the modules whose parameters ZeRO gathers together: layers.
    """
    for module in root.modules():
        if hasattr(module, "tensor_dims"):
            _shard_matrices(module, mesh)
    if zero is not Zero.none and (mesh.batch.size > 1 or mesh.has_host_parameters):
        _shard_copies(root, list(units), mesh, zero is Zero.parameters)


def allocate(root: nn.Module, device: torch.device, mesh: Mesh) -> None:
    """Give a network on the meta device memory, without values; what ZeRO shards, where asked, in
    host memory."""

    def empty(tensor: Tensor) -> Tensor:
        is_on_host = mesh.has_host_parameters and bool({BATCH, DATA} & axis_names(tensor))
        return torch.empty_like(tensor, device="cpu" if is_on_host else device)

    root._apply(empty)  # type: ignore[no-untyped-call]


def _shard_matrices(module: nn.Module, mesh: Mesh) -> None:
    """Experts over the expert axis, matrices over the tensor axis, both by the plan."""
    holds_experts = getattr(module, "holds_experts", False)
    axes = [(EXPERT, mesh.expert.size)] if holds_experts else []
    axes.append((TENSOR, mesh.tensor.size))
    names = tuple(name for name, size in axes if size > 1)
    if not names:
        return
    assert mesh.devices is not None, "more than one rank has a device mesh"
    devices = mesh.devices[names if len(names) > 1 else names[0]]
    dims: dict[str, int] = module.tensor_dims  # type: ignore[assignment]
    is_whole = holds_experts and mesh.joint is not None
    for name, _ in list(module.named_parameters(recurse=False)):
        by_axis = {EXPERT: 0, TENSOR: 0 if is_whole else dims.get(name)}
        if holds_experts or by_axis[TENSOR] is not None:
            shard_parameter(module, name, tuple(by_axis[axis] for axis in names), devices)


def _shard_copies(root: nn.Module, units: list[nn.Module], mesh: Mesh, parameters: bool) -> None:
    """ZeRO by FSDP2: gradients and optimizer state, or parameters as well."""
    # Routings hold views; nothing of ours writes into them, which is what FSDP2 warns of.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    assert mesh.devices is not None, "more than one rank has a device mesh"
    assert mesh.batch_devices is not None, "more than one rank has a device mesh"
    policy = OffloadPolicy()
    if mesh.has_host_parameters:
        policy = CPUOffloadPolicy(pin_memory=mesh.devices.device_type == "cuda")
    wrap = functools.partial(_wrap, policy)
    experts = [m for m in root.modules() if getattr(m, "holds_experts", False)]
    of_experts = {p for m in experts for p in m.parameters()}
    if mesh.data.size > 1 or mesh.has_host_parameters:
        for module in experts:
            wrap(module, mesh.devices[DATA], parameters, set())
            if mesh.data.size == 1:  # FSDP2 divides twice in float64: `reduce_gradients` does it
                continue
            module.set_gradient_divide_factor(float(mesh.batch.size))  # type: ignore[operator]
            # gloo has no sum of scaled numbers
            module.set_force_sum_reduction_for_comms(True)  # type: ignore[operator]
    for module in [*units, root]:
        wrap(module, mesh.batch_devices, parameters and module is not root, of_experts)
    if mesh.owners.size > 1:
        # FSDP2 gathers the weights that come next in backward ahead of time. Between all-to-alls,
        # with layers computed again, ranks then wait for each other for ever (data 2 x expert 2,
        # ZeRO-3; why was not traced). A module that names itself gathers nothing ahead.
        for module in [*experts, *units, root]:
            if isinstance(module, FSDPModule):
                module.set_modules_to_backward_prefetch([module])


def _wrap(
    policy: OffloadPolicy,
    module: nn.Module,
    devices: DeviceMesh,
    parameters: bool,
    others: set[nn.Parameter],
) -> None:
    ranks = devices.size()
    whole = {p for p in module.parameters() if _free_dim(p, ranks) is None}
    fully_shard(
        module,
        mesh=devices,
        reshard_after_forward=parameters,
        shard_placement_fn=lambda p: Shard(_free_dim(p, ranks) or 0),
        offload_policy=policy,
        ignored_params=(whole | others) & set(module.parameters()),
    )


def _free_dim(parameter: Tensor, ranks: int) -> int | None:
    """The dim that ZeRO shards: one that no axis shards yet, and that divides (dim 0 need not).

    A bias whose only dim is sharded already has none; it stays whole.
    """
    taken = set()
    if isinstance(parameter, DTensor):
        taken = {p.dim for p in parameter.placements if isinstance(p, Shard)}
    for dim, size in enumerate(parameter.shape):
        if dim not in taken and (dim == 0 or size % ranks == 0):
            return dim
    return None
