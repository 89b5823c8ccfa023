"""An all-to-all in two halves, between which something else is computed.

Both are operators, as all collectives are. Between them, a tensor of one number stands for the rows
that are under way, forward, or for their gradients, backward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mtmoe.parallel.collectives import exchange_rows, save_splits
from mtmoe.parallel.mesh import Axis


def start_all_to_all(x: Tensor, send: list[int], recv: list[int], axis: Axis) -> Tensor:
    """The first half of `all_to_all`: returns while rows are under way.

    What is called before `finish_all_to_all` runs meanwhile; its backward then runs while the
    gradient is under way, since autograd goes backward in the order of the forward pass.

    Returns:
        (1,), which `finish_all_to_all` takes with the same further arguments.
    """
    if axis.size == 1:
        return x
    out: Tensor = torch.ops.mtmoe.start_all_to_all(x, send, recv, axis.name)
    return out


def finish_all_to_all(under_way: Tensor, send: list[int], recv: list[int], axis: Axis) -> Tensor:
    """The second half of `all_to_all`: waits for the rows."""
    if axis.size == 1:
        return under_way
    out: Tensor = torch.ops.mtmoe.finish_all_to_all(under_way, send, recv, axis.name)
    return out


@dataclass(frozen=True)
class _UnderWay:
    """Rows that an all-to-all is bringing."""

    rows: Tensor
    work: dist.Work
    sent: Tensor  # must live as long as it is being sent
    token: Tensor  # (1,), stands for the rows in the graph; its memory is the key of `_under_way`


_under_way: dict[int, _UnderWay] = {}


@torch.library.custom_op("mtmoe::start_all_to_all", mutates_args=())
def _start_all_to_all(x: Tensor, send: list[int], recv: list[int], group: str) -> Tensor:
    x = x.contiguous()
    out, work = exchange_rows(x, send, recv, group, is_async=True)
    assert work is not None, "an asynchronous collective can be waited for"
    token = x.new_zeros(1)
    _under_way[token.data_ptr()] = _UnderWay(out, work, x, token)
    return token


@torch.library.custom_op("mtmoe::finish_all_to_all", mutates_args=())
def _finish_all_to_all(token: Tensor, send: list[int], recv: list[int], group: str) -> Tensor:
    found = _under_way.pop(token.data_ptr())
    found.work.wait()
    return found.rows


def _start_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    back = torch.ops.mtmoe.finish_all_to_all(grad, ctx.recv, ctx.send, ctx.group)
    return back, None, None, None


def _finish_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    back = torch.ops.mtmoe.start_all_to_all(grad, ctx.recv, ctx.send, ctx.group)
    return back, None, None, None


_start_all_to_all.register_autograd(_start_backward, setup_context=save_splits)
_finish_all_to_all.register_autograd(_finish_backward, setup_context=save_splits)
