"""A learning rate that reaches its end when the time is up."""

from __future__ import annotations

import time
from typing import Any

from fairseq.optim.lr_scheduler import FairseqLRScheduler, register_lr_scheduler

from mtmoe.config import DeadlineConfig
from mtmoe.errors import ConfigError
from mtmoe.fairseq_view import fairseq_view, one_sentence

View = fairseq_view(
    DeadlineConfig,
    "DeadlineView",
    borrowed={"hours": "optimization.stop_time_hours", "lr": "optimization.lr"},
)


@register_lr_scheduler("linear_to_deadline", dataclass=View)
class LinearToDeadline(FairseqLRScheduler):
    """Linear from `lr` to 0 over the hours of `--stop-time-hours`, at which fairseq stops.

    A training of fixed minutes thus ends with a small learning rate on any machine, however many
    updates it makes. The hours that earlier runs of a resumed training took are in its checkpoint.
    """

    def __init__(self, cfg: Any, optimizer: Any) -> None:
        super().__init__(cfg, optimizer)
        with one_sentence():
            if cfg.hours <= 0:
                raise ConfigError(
                    f"stop_time_hours must be above 0 for linear_to_deadline, but is {cfg.hours}."
                )
        self.peak = float(cfg.lr[0])
        self.earlier_seconds = 0.0
        self.started: float | None = None  # the clock runs from the first update
        self.step_update(0)

    def state_dict(self) -> dict[str, Any]:
        """The seconds spent so far."""
        return {"seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the seconds of an earlier run."""
        self.earlier_seconds = float(state_dict.get("seconds", 0.0))
        self.started = None

    def step(self, epoch: int, val_loss: float | None = None) -> float:
        """The end of an epoch changes nothing."""
        super().step(epoch, val_loss)
        return float(self.optimizer.get_lr())

    def step_update(self, num_updates: int) -> float:
        """Set the learning rate of update `num_updates`."""
        if num_updates > 0 and self.started is None:
            self.started = time.monotonic()
        warmup = min(1.0, (num_updates + 1) / max(self.cfg.warmup_updates, 1))
        remaining = max(0.0, 1.0 - self._seconds() / (3600 * self.cfg.hours))
        self.optimizer.set_lr(self.peak * warmup * remaining)
        return float(self.optimizer.get_lr())

    def _seconds(self) -> float:
        running = 0.0 if self.started is None else time.monotonic() - self.started
        return self.earlier_seconds + running
