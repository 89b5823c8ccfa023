"""Training on sampled streams inside fairseq: a dataset, and its iterator with a whole state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fairseq.data import FairseqDataset
from fairseq.data.iterators import EpochBatchIterator
from numpy.typing import NDArray

from mtmoe.data.mixture import Mixture
from mtmoe.data.sampler import Batch, Budget, State, StreamSampler
from mtmoe.errors import CheckpointError
from mtmoe.tasks.direction_dataset import DirectionData, collate, make_sample
from mtmoe.tasks.streams import NoisedText


class StreamDataset(FairseqDataset):
    """Sentences of streams; an item is asked for by (stream, row, pass, update).

    Args:
        numbers: the number of each stream among those of the task, for the log.
    """

    def __init__(self, streams: Sequence[DirectionData], numbers: Sequence[int]) -> None:
        super().__init__()
        self.streams, self.numbers = streams, numbers
        self.starts = np.cumsum([0, *(len(s.target or ()) for s in streams)])
        self.losses: dict[str, float] = {}  # of the last validation, by stream
        self.next_state: tuple[int, State] | None = None  # of the epoch after the last plan

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, item: NDArray[np.int64]) -> dict[str, Any]:
        which, row, epoch, update = (int(n) for n in item)
        data = self.streams[which]
        noised = data.source
        source = noised.at(row, epoch, update) if isinstance(noised, NoisedText) else noised[row]
        return make_sample(data, int(self.starts[which]) + row, source, row, self.numbers[which])

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """See `collate`."""
        return collate(samples)

    def lengths(self) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """Lengths of source, tags included, and target, by stream."""
        targets = [s.source if s.target is None else s.target for s in self.streams]
        extra = [np.int32(len(s.source_tags)) for s in self.streams]
        sources = [s.source.sizes + n for s, n in zip(self.streams, extra, strict=True)]
        return list(zip(sources, (t.sizes for t in targets), strict=True))


@dataclass(frozen=True)
class Dealing:
    """How the sequence of batches is dealt out."""

    num_shards: int
    shard_id: int
    update_freq: int
    epoch_updates: int

    @property
    def batches_per_update(self) -> int:
        """Batches of all ranks."""
        return self.num_shards * self.update_freq


class StreamIterator(EpochBatchIterator):
    """An epoch of exactly `epoch_updates` updates; rank r of R takes batches r, r + R, ...

    Its state in the checkpoint (`extra_state.train_iterator`) has the sampler's at the start of the
    epoch, the batches taken since, and the sentences that each stream has been seen with.
    """

    def __init__(
        self,
        dataset: StreamDataset,
        sampler: StreamSampler,
        dealing: Dealing,
        epoch: int,
        num_workers: int,
    ) -> None:
        super().__init__(
            dataset,
            dataset.collater,
            self._plan,
            num_shards=dealing.num_shards,
            shard_id=dealing.shard_id,
            num_workers=num_workers,
            epoch=epoch,
            disable_shuffling=True,
        )
        self.sampler, self.dealing = sampler, dealing
        self.tasks = sorted(set(sampler.mixture.tasks))
        is_next = dataset.next_state is not None and dataset.next_state[0] == epoch
        self.begin = dataset.next_state[1] if is_next and dataset.next_state else sampler.start()
        self.losses = dict(dataset.losses)  # that this epoch's shares are made from

    def _plan(self, dataset: StreamDataset, epoch: int) -> list[Batch]:
        length = self.dealing.epoch_updates
        updates = range((epoch - 1) * length, epoch * length)
        per_update = self.dealing.batches_per_update
        batches, end = self.sampler.plan(self.begin, updates, per_update, self.losses)
        dataset.next_state = (epoch + 1, end)
        self._count_tasks(batches)
        return batches

    def _count_tasks(self, batches: list[Batch]) -> None:
        """Sentences of each task seen before each step of a rank, (steps + 1, tasks)."""
        task = np.array([self.tasks.index(name) for name in self.sampler.mixture.tasks])
        counts = np.zeros((len(batches) // self.num_shards + 1, len(self.tasks)), np.int64)
        counts[0] = np.bincount(task, weights=self.begin["seen"], minlength=len(self.tasks))
        for number, batch in enumerate(batches):
            step = number // self.num_shards + 1
            counts[step] += np.bincount(task[batch[:, 0]], minlength=len(self.tasks))
        self._seen_by_task = counts.cumsum(0)

    def seen(self) -> dict[str, int]:
        """The sentences seen so far, by stream."""
        counts = np.array(self.begin["seen"])
        taken = self.frozen_batches[: self.iterations_in_epoch * self.num_shards]
        if taken:
            streams = np.concatenate([batch[:, 0] for batch in taken])
            counts = counts + np.bincount(streams, minlength=len(counts))
        return dict(zip(self.sampler.mixture.names, counts.tolist(), strict=True))

    def task_shares(self) -> dict[str, float]:
        """The share of the sentences seen so far, by task."""
        counts = self._seen_by_task[self.iterations_in_epoch]
        return dict(zip(self.tasks, (counts / max(counts.sum(), 1)).tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """What goes into the checkpoint."""
        state = super().state_dict()
        dataset: StreamDataset = self.dataset
        is_over = self.end_of_epoch()
        begin = dataset.next_state[1] if is_over and dataset.next_state else self.begin
        return {
            **state,
            "begin": begin,
            "batches_taken": 0 if is_over else self.iterations_in_epoch * self.num_shards,
            "losses": dict(dataset.losses if is_over else self.losses),
            "new_losses": dict(dataset.losses),
            "seen": self.seen(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a training stopped, on any number of ranks.

        Raises:
            CheckpointError: it was trained on other streams, or dealt into other updates.
        """
        self._check_state(state_dict)
        dataset: StreamDataset = self.dataset
        self.begin, self.losses = state_dict["begin"], dict(state_dict["losses"])
        dataset.losses = dict(state_dict["new_losses"])
        self._frozen_batches = None
        taken = state_dict["batches_taken"] // self.num_shards
        super().load_state_dict({**state_dict, "iterations_in_epoch": taken, "shuffle": False})

    def _check_state(self, state: dict[str, Any]) -> None:
        names = self.sampler.mixture.names
        if "begin" not in state or state["begin"]["names"] != names:
            raise CheckpointError(
                "the checkpoint must be of a training that samples the same tasks and directions, "
                "but is not. Give --reset-dataloader to begin a new sequence of sentences."
            )
        if state["batches_taken"] % self.dealing.batches_per_update:
            raise CheckpointError(
                f"ranks x update_freq must be as in the interrupted epoch, but is "
                f"{self.dealing.batches_per_update}. Change --update-freq."
            )


def make_iterator(
    dataset: StreamDataset, mixture: Mixture, budget: Budget, seed: int, **settings: Any
) -> StreamIterator:
    """The iterator of an epoch; `settings` are those of `StreamIterator`."""
    sampler = StreamSampler(mixture, dataset.lengths(), budget, seed)
    return StreamIterator(dataset, sampler, **settings)
