"""Activation checkpointing that neither decides nor, where asked, communicates a second time.

Every operator of the library `mtmoe` is either a collective (`mtmoe.parallel.collectives`) or a
decision (`keep` below); a policy of selective checkpointing tells them by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from mtmoe.config import CheckpointActivations

T = TypeVar("T")

_library = torch.library.Library("mtmoe", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("keep(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]
_library.impl("keep", torch.clone, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]


def keep(x: Tensor) -> Tensor:
    """A copy of `x`, of integers, which recomputation does not compute again but is given.

    For decisions, such as the expert of a token: where sums are made in another order, the last
    bit of a score differs, and a recomputed choice could differ from the one that was made.
    """
    out: Tensor = torch.ops.mtmoe.keep(x)
    return out


def recompute(mode: CheckpointActivations, function: Callable[..., T], *args: Any) -> T:
    """`function(*args)`; in the backward pass it is called again for what it has not kept.

    Random numbers are drawn equal both times if they come from PyTorch's global generators, or
    from a generator that `function` makes itself. Gradients equal those without checkpointing bit
    by bit (as far as the operators give the same bits each time).

    Communication-aware checkpointing (Singh et al. 2023, arXiv:2303.06318, section 5) is
    `keep_communication`: what collectives gave is kept as well, and nothing is sent again. Under
    `full`, all ranks of an axis must recompute alike, since they send again.
    """
    if mode is CheckpointActivations.none or not torch.is_grad_enabled():
        return function(*args)
    contexts = functools.partial(create_selective_checkpoint_contexts, _POLICIES[mode])
    out: T = checkpoint(function, *args, use_reentrant=False, context_fn=contexts)
    return out


def _keep_decisions(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return _kept_if(operator is torch.ops.mtmoe.keep.default)


def _keep_communication(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return _kept_if(operator.namespace == "mtmoe")


def _kept_if(is_kept: bool) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if is_kept else CheckpointPolicy.PREFER_RECOMPUTE


_POLICIES = {
    CheckpointActivations.full: _keep_decisions,
    CheckpointActivations.keep_communication: _keep_communication,
}
