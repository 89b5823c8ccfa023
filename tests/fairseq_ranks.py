"""Stock fairseq-train on ranks: as torchrun starts it, but forked, without the time of imports."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch._dynamo  # checkpointing and FSDP2 import it, which takes seconds: before ranks fork
import torch.distributed as dist
from torch import Tensor

from mtmoe.parallel.slices import slices_of, stored_part
from tests.fairseq_run import SETTINGS
from tests.ranks import run_ranks

ROOT = Path(__file__).parents[1]
PROGRAM = (  # imported before ranks fork
    "fairseq_cli.train",
    "mtmoe.models.moe_transformer",
    "mtmoe.tasks.multitask_translation",
)


@dataclass
class Trace:
    """What a rank computed; gradients are the scaled and clipped ones of the last update."""

    losses: list[float] = field(default_factory=list)  # a target token's, of each micro-batch
    norms: list[float] = field(default_factory=list)  # of each update
    gradients: dict[int, tuple[list[tuple[int, int]], Tensor]] = field(default_factory=dict)


def train_on_ranks(
    num_ranks: int, data: Path, save_dir: Path, *options: str
) -> tuple[dict[str, Any], list[Trace]]:
    """Train, and return the last checkpoint's whole state and each rank's trace."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fairseq's
        for name in PROGRAM:
            importlib.import_module(name)
    save_dir.mkdir(parents=True, exist_ok=True)
    words = [str(data), "--save-dir", str(save_dir), *SETTINGS, *options]
    run_ranks(_train, num_ranks, save_dir, words)
    state: dict[str, Any] = torch.load(save_dir / "checkpoint_last.pt", weights_only=True)
    saved = [torch.load(save_dir / f"trace.{n}", weights_only=True) for n in range(num_ranks)]
    return state, [Trace(**trace) for trace in saved]


def _train(save_dir: Path, words: list[str]) -> None:
    from fairseq_cli.train import cli_main

    from mtmoe.tasks.programs import fit_program

    rank, world = dist.get_rank(), dist.get_world_size()
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world}
    os.environ.update({name: str(value) for name, value in told.items()})
    sys.argv = ["fairseq-train", *words, "--cpu", "--user-dir", str(ROOT / "mtmoe")]
    warnings.simplefilter("ignore")  # fairseq's: among others, that the group is there already
    with recorded() as trace:
        fit_program()
        cli_main()
    torch.save(vars(trace), save_dir / f"trace.{rank}")


@contextlib.contextmanager
def recorded() -> Iterator[Trace]:
    """Write down what a training in this process computes while it is open."""
    from mtmoe.criterions.moe_cross_entropy import MoeCrossEntropy
    from mtmoe.optim.fairseq_adam import FusedAdam

    trace = Trace()
    forward, clip, step = MoeCrossEntropy.forward, FusedAdam.clip_grad_norm, FusedAdam.step

    def note_loss(self: Any, model: Any, sample: Any, reduce: bool = True) -> Any:
        found = forward(self, model, sample, reduce)
        if model.training:
            trace.losses.append(found[0].item() / found[1])
        return found

    def note_norm(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        norm = clip(self, *args, **kwargs)
        trace.norms.append(norm.item())
        return norm

    def note_gradients(self: Any, *args: Any, **kwargs: Any) -> None:
        trace.gradients = {
            number: (
                [(part.start, part.stop) for part in slices_of(parameter)],
                stored_part(parameter.grad) * self._scale,
            )
            for number, parameter in enumerate(self.params)
            if parameter.grad is not None
        }
        step(self, *args, **kwargs)

    with (
        patch.object(MoeCrossEntropy, "forward", note_loss),
        patch.object(FusedAdam, "clip_grad_norm", note_norm),
        patch.object(FusedAdam, "step", note_gradients),
    ):
        yield trace
