"""Count what PyTorch's own engine sends: FSDP2's collectives, and those of gradients and norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from mtmoe.parallel.collectives import Traffic

PREFIX = "engine "  # of the kinds of collectives


class EngineTraffic(TorchDispatchMode):
    """Adds the engine's collectives to `traffic` while it is open, backward passes included.

    Our operators (`mtmoe.parallel.collectives`) count themselves: what they call is not seen here.
    """

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.traffic = traffic

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Note `func` if it is a collective, and call it."""
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # which makes its operations of local tensors, seen then
        found = _COLLECTIVES.get(getattr(func, "_overloadpacket", None))
        if found is not None:
            kind, sent_bytes = found
            self.traffic.calls[PREFIX + kind] += 1
            self.traffic.sent_bytes[PREFIX + kind] += sent_bytes(*args)
        return func(*args, **(kwargs or {}))


def _of_gather(output: Tensor, input_: Tensor, *_: Any) -> int:
    """Each rank's part goes to all others."""
    return output.nbytes - input_.nbytes


def _of_scatter(output: Tensor, input_: Tensor, *_: Any) -> int:
    """Each rank sends the others' parts."""
    return input_.nbytes - output.nbytes


def _of_reduce(tensors: list[Tensor], group: Any, *_: Any) -> int:
    """A ring's reduce-scatter and all-gather."""
    size = dist.ProcessGroup.unbox(group).size()
    return sum(2 * (size - 1) * tensor.nbytes // size for tensor in tensors)


_COLLECTIVES: dict[Any, tuple[str, Callable[..., int]]] = {
    torch.ops.c10d._allgather_base_: ("all_gather", _of_gather),
    torch.ops.c10d._reduce_scatter_base_: ("reduce_scatter", _of_scatter),
    torch.ops.c10d.allreduce_: ("all_reduce", _of_reduce),
}
