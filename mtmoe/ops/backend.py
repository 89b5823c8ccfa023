"""Which implementation of dispatch and experts runs where."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from mtmoe.config import Activation, BackendChoice
from mtmoe.errors import ConfigError
from mtmoe.ops import cpu_experts, cpu_shared, dispatch, expert_ffn, routing
from mtmoe.ops.buffers import BufferPool
from mtmoe.ops.dispatch import Permutation
from mtmoe.ops.expert_ffn import ExpertWeights


@dataclass(frozen=True)
class Backend:
    """The steps of an MoE layer; all backends equal `TORCH`, gradients included.

    `run_experts` is permute, expert_ffn and combine in one, for experts that are all on this rank.
    """

    name: BackendChoice
    assign_slots: Callable[..., Tensor]  # mtmoe.ops.routing.assign_slots
    sort_by_expert: Callable[[Tensor, Tensor, int], Permutation]
    permute: Callable[[Tensor, Permutation], Tensor]
    expert_ffn: Callable[..., Tensor]  # mtmoe.ops.expert_ffn.expert_ffn
    combine: Callable[[Tensor, Tensor, Permutation], Tensor]
    fused: Callable[..., Tensor] | None = None  # mtmoe.ops.cpu_experts.fused_experts
    fused_shared: Callable[..., Tensor] | None = None  # mtmoe.ops.cpu_shared.fused_shared

    def run_experts(
        self,
        x: Tensor,
        weight: Tensor,
        permutation: Permutation,
        weights: ExpertWeights,
        activation: Activation = Activation.relu,
        dropout: float = 0.0,
        buffers: BufferPool | None = None,
    ) -> Tensor:
        """(T, D) tokens to the weighted sum of their experts' outputs, (T, D)."""
        if self.fused is not None and dropout == 0:
            return self.fused(x, weight, permutation, weights, activation, buffers)
        rows = self.permute(x, permutation)
        rows = self.run_ffn(rows, permutation.counts, weights, activation, dropout)
        return self.combine(rows, weight, permutation)

    def run_ffn(
        self,
        rows: Tensor,
        counts: Tensor,
        weights: ExpertWeights,
        activation: Activation,
        dropout: float = 0.0,
    ) -> Tensor:
        """`expert_ffn` of (R, D) rows in expert order; only the definition knows dropout."""
        options = (dropout,) if dropout else ()
        return self.expert_ffn(rows, counts, weights, activation, *options)


TORCH = Backend(
    BackendChoice.torch,
    routing.assign_slots,
    dispatch.sort_by_expert,
    dispatch.permute,
    expert_ffn.expert_ffn,
    dispatch.combine,
)
CPU = Backend(
    BackendChoice.cpu,
    routing.assign_slots,
    dispatch.sort_by_expert,
    dispatch.permute,
    expert_ffn.expert_ffn,
    dispatch.combine,
    fused=cpu_experts.fused_experts,
    fused_shared=cpu_shared.fused_shared,
)


def select_backend(choice: BackendChoice, device: torch.device, dropout: float = 0.0) -> Backend:
    """The backend that `choice` means on `device`; `auto` takes the fastest that can run.

    Args:
        dropout: of the experts' hidden numbers; only the definition has it.

    Raises:
        ConfigError: the named backend cannot run here.
    """
    if choice is BackendChoice.auto:
        choice = _fastest(device) if dropout == 0 else BackendChoice.torch
    if choice is BackendChoice.cpu and device.type != "cpu":
        raise ConfigError(f"backend must be auto, torch or triton on {device.type}, but is cpu.")
    if choice is BackendChoice.triton:
        _check_triton(device)
        return _triton()
    return CPU if choice is BackendChoice.cpu else TORCH


def _fastest(device: torch.device) -> BackendChoice:
    if device.type == "cpu":
        return BackendChoice.cpu
    can_use_triton = device.type == "cuda" and importlib.util.find_spec("triton") is not None
    return BackendChoice.triton if can_use_triton else BackendChoice.torch


def _check_triton(device: torch.device) -> None:
    if importlib.util.find_spec("triton") is None:
        raise ConfigError(
            "backend must be auto, torch or cpu without the package triton, but is triton. "
            "Install it: pip install 'mtmoe[triton]'."
        )
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError(
            f"backend must be auto, torch or cpu on {device.type}, but is triton. Use a GPU, or "
            "set TRITON_INTERPRET=1 to run the kernels slowly for a test."
        )


@cache
def _triton() -> Backend:
    """Imported only here: triton is an extra, and loading it takes seconds."""
    from mtmoe.ops.triton import grouped, permute
    from mtmoe.ops.triton import routing as triton_routing

    return Backend(
        BackendChoice.triton,
        triton_routing.assign_slots,
        triton_routing.sort_by_expert,
        permute.permute,
        grouped.expert_ffn,
        permute.combine,
    )
