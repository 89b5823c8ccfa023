"""Which share of the sentences each stream (a task's direction) has, by update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtmoe.config import SamplingConfig
from mtmoe.data.schedule import parse_table
from mtmoe.errors import ConfigError

Shares = NDArray[np.float64]
TRANSLATION = "translation"


@dataclass(frozen=True)
class Stream:
    """Sentences of one task and direction: `en-de`, `denoising:de`, `title:en-de`."""

    name: str
    size: int

    @property
    def task(self) -> str:
        """The task, which the names of all but translation begin with."""
        task, separator, _ = self.name.partition(":")
        return task if separator else TRANSLATION


class Mixture:
    """The shares of streams: of tasks as asked, within a task by temperature.

    Raises:
        ConfigError: a setting names no stream or task, or nothing has a share at the start.
    """

    def __init__(
        self, streams: Sequence[Stream], config: SamplingConfig, temperature: float
    ) -> None:
        self.streams, self.config = streams, config
        self.names = [stream.name for stream in streams]
        self.tasks = [stream.task for stream in streams]
        sizes = np.array([stream.size for stream in streams], dtype=np.float64)
        self.tempered = sizes ** (1 / temperature)
        self.task_shares = parse_table("task_mix", config.task_mix, "1")
        self.explicit = parse_table("direction_shares", config.direction_shares)
        joins = parse_table("join_updates", config.join_updates)
        for setting, table in (("direction_shares", self.explicit), ("join_updates", joins)):
            for name in table:
                _check_known(setting, name, self.names)
        for name, schedule in joins.items():
            if len(schedule.points) > 1 or schedule.points[0][0]:
                raise ConfigError(
                    f"join_updates must be one update for each direction, but {name} has a "
                    f"schedule. Write {name}=2000."
                )
        for name in self.task_shares:
            _check_known("task_mix", name, sorted(set(self.tasks)))
        self.joins = np.array([joins[n].at(0) if n in joins else 0.0 for n in self.names])
        self._check_all_updates()

    def _check_all_updates(self) -> None:
        """Refuse shares that are all 0 at some update; between these updates they are linear."""
        schedules = [*self.task_shares.values(), *self.explicit.values()]
        updates = {0, *self.joins.tolist()} | {u for s in schedules for u, _ in s.points}
        for update in sorted(updates):
            self._check_explicit(int(update))
            self.shares(int(update))

    def _check_explicit(self, update: int) -> None:
        """Refuse explicit shares that leave less than nothing for the others of their task."""
        for task in self.task_shares:
            members = [n for n, its in zip(self.names, self.tasks, strict=True) if its == task]
            given = sum(self.explicit[n].at(update) for n in members if n in self.explicit)
            if given > 1 + 1e-6 and not set(members) <= set(self.explicit):
                raise ConfigError(
                    f"direction_shares of {task} must be at most 1 together, since its other "
                    f"directions share the rest, but are {given:g} at update {update}. Lower "
                    "them, or give one to each direction."
                )

    def shares(self, update: int, losses: Mapping[str, float] | None = None) -> Shares:
        """(N,) shares of all sentences at `update`; they sum to 1.

        Args:
            losses: validation losses by stream; those that are missing count as the mean.

        Raises:
            ConfigError: no stream has a share.
        """
        weights = self._loss_weights(losses or {}) * self.tempered
        result = np.zeros(len(self.streams))
        for task, schedule in self.task_shares.items():
            members = np.array([name == task for name in self.tasks]) & (self.joins <= update)
            if members.any():
                result[members] = schedule.at(update) * self._within(members, weights, update)
        if result.sum() <= 0:
            raise ConfigError(
                f"a task with a direction must have a share, but none has at update {update}. "
                "Change task_mix or join_updates."
            )
        return np.asarray(result / result.sum())

    def _loss_weights(self, losses: Mapping[str, float]) -> Shares:
        known = [losses[name] for name in self.names if name in losses]
        if not known or self.config.loss_power == 0:
            return np.ones(len(self.names))
        mean = max(float(np.mean(known)), 1e-9)
        relative = [max(losses.get(name, mean) / mean, 1e-3) for name in self.names]
        return np.array(relative) ** self.config.loss_power

    def _within(self, members: NDArray[np.bool_], weights: Shares, update: int) -> Shares:
        """Shares within one task: explicit ones first, the rest by `weights`."""
        chosen = np.flatnonzero(members)
        shares, free = np.zeros(len(chosen)), np.ones(len(chosen), dtype=bool)
        for place, number in enumerate(chosen):
            if self.names[number] in self.explicit:
                shares[place], free[place] = self.explicit[self.names[number]].at(update), False
        left = 1 - shares.sum()
        if free.any() and left > 0:
            shares[free] = left * weights[chosen[free]] / weights[chosen[free]].sum()
        return bound_shares(shares, self.config.min_share, self.config.max_share)


def _check_known(setting: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ConfigError(f"{setting} must be among {', '.join(known)}, but is {name!r}.")


def bound_shares(shares: Shares, floor: float, cap: float) -> Shares:
    """Shares between `floor` and `cap` that sum to 1; those between keep their proportions.

    Bounds that cannot be met (a floor above 1/N, a cap below) give all the same share. All shares
    0 gives all the same, too.
    """
    N = len(shares)
    if shares.sum() <= 0 or floor * N >= 1 or cap * N <= 1:
        return np.full(N, 1 / N)
    low, high = 0.0, 1.0
    while np.clip(high * shares, floor, cap).sum() < 1 and high < 1e12:
        high *= 2
    for _ in range(80):  # halving: the sum grows with the factor
        factor = (low + high) / 2
        is_small = np.clip(factor * shares, floor, cap).sum() < 1
        low, high = (factor, high) if is_small else (low, factor)
    bounded = np.clip(high * shares, floor, cap)
    return np.asarray(bounded / bounded.sum())
