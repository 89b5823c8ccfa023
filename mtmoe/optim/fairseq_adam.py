"""Adam that passes over gradients and states once an update, on CPU and CUDA."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fairseq.optim import FairseqOptimizer, register_optimizer
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from torch import Tensor

from mtmoe.checkpoint.fairseq_file import SHARDS
from mtmoe.checkpoint.gathered import gather_adam
from mtmoe.checkpoint.shard_folder import StoredAdam
from mtmoe.checkpoint.sharded import (
    model_tensors,
    open_shards,
    split_adam,
    stub_of_model,
    write_shards,
)
from mtmoe.checkpoint.start import find_start
from mtmoe.config import AdamConfig
from mtmoe.errors import ConfigError
from mtmoe.fairseq_view import core_config, fairseq_view, one_sentence
from mtmoe.optim.tiled_adam import TiledAdam
from mtmoe.parallel.gradients import gradient_norm, reduce_gradients
from mtmoe.parallel.mesh import ONE_PROCESS, is_first_rank

START = {  # what says which checkpoint fairseq loads
    name: f"checkpoint.{name}" for name in ("save_dir", "restore_file", "finetune_from_model")
}
View = fairseq_view(AdamConfig, "AdamView", borrowed=START, base=FairseqAdamConfig)


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
        self._saved: dict[str, Any] | None = None  # what rank 0 writes, for the next `state_dict`
        self._optimizer.before_save = self._before_save

    @property
    def supports_flat_params(self) -> bool:
        """They do not fit its state's layout; fairseq asks before it flattens float16's copies.

        Raises:
            SystemExit: after one sentence, where fairseq would give up by a traceback.
        """
        with one_sentence():
            raise ConfigError(
                "fp16_no_flatten_grads must be on beside fp16 with fused_adam, but is off. Add "
                "--fp16-no-flatten-grads; or, which is faster and needs no loss scale, use --bf16."
            )

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

    def _before_save(self) -> None:
        """Write the shards, or bring model and state to rank 0; every rank must call it.

        A rank that crashes calls it alone: then nothing can be gathered.
        """
        if self._model is None or sys.exc_info()[0] is not None:
            return
        if self._model.shards_in is not None:
            self._write_shards(self._model.shards_in)
        elif self._model.is_sharded:
            self._model.gather()
            self._saved = gather_adam(super().state_dict(), list(self.params))

    def _write_shards(self, save_dir: Path) -> None:
        """Write model and state in parallel; the `.pt` of rank 0 then names their folder."""
        self._model.stand_in(None)
        weights = self._model.state_dict()
        small, tensors = split_adam(super().state_dict())
        step = max((int(values["step"]) for values in small["state"].values()), default=0)
        name = write_shards(save_dir, step, {**model_tensors(weights), **tensors})
        if is_first_rank():
            self._model.stand_in(stub_of_model(name, weights))
            self._saved = {**small, SHARDS: name}

    def state_dict(self) -> dict[str, Any]:
        """What was gathered or written for a save, once; else the state of this rank."""
        if self._saved is None:
            state: dict[str, Any] = super().state_dict()
            return state
        saved, self._saved = self._saved, None
        return saved

    def load_state_dict(
        self, state_dict: dict[str, Any], optimizer_overrides: dict[str, Any] | None = None
    ) -> None:
        """Go on from a checkpoint, or end the program with one sentence."""
        with one_sentence():
            if SHARDS in state_dict:
                state_dict = self._stored_state(state_dict)
            super().load_state_dict(state_dict, optimizer_overrides)

    def _stored_state(self, stub: dict[str, Any]) -> dict[str, Any]:
        """The state of a sharded checkpoint, of which this rank reads its parts one by one."""
        path = find_start(self.cfg.save_dir, self.cfg.restore_file, self.cfg.finetune_from_model)
        folder = open_shards(path or "", {"model": stub})
        assert folder is not None, "the checkpoint is sharded"
        return {**stub, "state": StoredAdam(folder, stub["state"], list(self.params))}

    def zero_grad(self) -> None:
        """Forget the gradients and what they were to be multiplied by."""
        self._optimizer.zero_grad()
        self._scale = 1.0
