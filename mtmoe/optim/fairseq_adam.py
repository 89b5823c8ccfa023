"""Adam that passes over gradients and states once an update, on CPU and CUDA."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from fairseq.optim import FairseqOptimizer, register_optimizer
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from torch import Tensor

from mtmoe.checkpoint.gathered import gather_adam
from mtmoe.config import AdamConfig
from mtmoe.fairseq_view import core_config, fairseq_view, one_sentence
from mtmoe.optim.tiled_adam import TiledAdam
from mtmoe.parallel.gradients import gradient_norm, reduce_gradients
from mtmoe.parallel.mesh import ONE_PROCESS

View = fairseq_view(AdamConfig, "AdamView", base=FairseqAdamConfig)


@register_optimizer("fused_adam", dataclass=View)
class FusedAdam(FairseqAdam):
    """fairseq's `adam` with its flags, stepped by `TiledAdam`.

    Most parameters of an MoE model are experts that see few tokens, so memory traffic of the update
    counts. fairseq's own optimizer passes over each gradient twice to scale it, and ten times over
    the states. Here scale and clip are only multiplied up, and the fused step applies them.
    """

    def __init__(self, cfg: Any, params: Any) -> None:
        FairseqOptimizer.__init__(self, cfg)
        with one_sentence():
            config = core_config(AdamConfig, cfg)
        self._optimizer = TiledAdam(params, config, **self.optimizer_config)
        self._scale: float | Tensor = 1.0  # what gradients are to be multiplied by
        self._model: Any = None  # known from the first update on
        self._whole: dict[str, Any] | None = None
        self._optimizer.before_save = self._gather

    def all_reduce_grads(self, module: Any) -> None:
        """Average the gradients over the ranks with different batches (not fairseq's way)."""
        self._model = module
        reduce_gradients(self.params, module.transformer.mesh)

    def multiply_grads(self, c: float | Tensor) -> None:
        """Scale the gradients, at the next step."""
        self._scale = self._scale * c

    def clip_grad_norm(
        self, max_norm: float, aggregate_norm_fn: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Clip at the next step; returns the norm of the scaled gradients before, ()."""
        mesh = ONE_PROCESS if self._model is None else self._model.transformer.mesh
        norm = gradient_norm(self.params, mesh).float()
        if aggregate_norm_fn is not None:
            norm = aggregate_norm_fn(norm)
        norm = norm * self._scale
        if max_norm > 0:
            self._scale = self._scale * (max_norm / (norm + 1e-6)).clamp(max=1.0)
        return norm

    def step(self, closure: Any = None, scale: float = 1.0, groups: Any = None) -> None:
        """Update the parameters; `scale` divides the gradients, as fairseq has it."""
        device = next(iter(self.params)).device
        divisor = torch.as_tensor(scale / self._scale, dtype=torch.float32, device=device)
        self._optimizer.step(closure, divisor.reshape(()))
        self._scale = 1.0

    def _gather(self) -> None:
        """Bring model and state to rank 0, which saves them; every rank must call it.

        A rank that crashes calls it alone: then nothing can be gathered.
        """
        if self._model is None or not self._model.is_sharded or sys.exc_info()[0] is not None:
            return
        self._model.gather()
        self._whole = gather_adam(super().state_dict(), list(self.params))

    def state_dict(self) -> dict[str, Any]:
        """The whole state that was gathered for a save, once; else that of this rank."""
        if self._whole is None:
            state: dict[str, Any] = super().state_dict()
            return state
        whole, self._whole = self._whole, None
        return whole

    def load_state_dict(
        self, state_dict: dict[str, Any], optimizer_overrides: dict[str, Any] | None = None
    ) -> None:
        """Go on from a checkpoint, or end the program with one sentence."""
        with one_sentence():
            super().load_state_dict(state_dict, optimizer_overrides)

    def zero_grad(self) -> None:
        """Forget the gradients and what they were to be multiplied by."""
        self._optimizer.zero_grad()
        self._scale = 1.0
