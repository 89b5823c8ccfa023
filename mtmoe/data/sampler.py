"""The sequence of training batches over streams: one sequence, whatever the number of ranks."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtmoe.config import BatchMix
from mtmoe.data.batching import batch_by_tokens
from mtmoe.data.mixture import Mixture, Shares
from mtmoe.data.permutation import permuted
from mtmoe.errors import DataError

POOL_BATCHES = 16  # of like lengths are cut from one pool
Batch = NDArray[np.int64]  # (n, 4): stream, row, pass over the stream, update
State = dict[str, Any]  # see `StreamSampler.start`


@dataclass(frozen=True)
class Budget:
    """How large a batch is."""

    max_tokens: int | None
    max_sentences: int | None
    max_length: tuple[int, int]  # of source and target; longer ones are left out


class StreamSampler:
    """Batches as a pure function of seed and state.

    Each stream is an endless row of passes, each pass in its own random order. Streams are owed
    sentences by their shares; a batch of one stream goes to the one that is owed most. Batches are
    cut from pools of like lengths and come in random order.

    Args:
        lengths: (size, 2) lengths of source and target of each stream.

    Raises:
        DataError: a stream has no sentence that fits.
    """

    def __init__(
        self,
        mixture: Mixture,
        lengths: Sequence[tuple[NDArray[np.int32], NDArray[np.int32]]],
        budget: Budget,
        seed: int,
    ) -> None:
        self.mixture, self.lengths, self.budget, self.seed = mixture, lengths, budget, seed
        self.is_mixed = mixture.config.batch_mix is BatchMix.mixed
        self.keys = [zlib.crc32(name.encode()) for name in mixture.names]
        self.num_left_out = 0
        means = []
        for stream, (source, target) in zip(mixture.streams, lengths, strict=True):
            fits = (source <= budget.max_length[0]) & (target <= budget.max_length[1])
            if not fits.any():
                raise DataError(
                    f"{stream.name} must have sentences of at most {budget.max_length} tokens, "
                    "but has none. Raise max_tokens or max_positions."
                )
            self.num_left_out += int((~fits).sum())
            means.append(float(np.maximum(source, target)[fits].mean()))
        self.mean_lengths = np.array(means)
        self._cache: dict[int, tuple[Any, list[Batch]]] = {}  # the open pools

    def start(self) -> State:
        """The state before the first batch.

        Keys: `owed` and `seen` sentences by stream, and open pools (one that all share, or one a
        stream): its `number`, each stream's place in its row (`starts`) and sentences in the pool
        (`counts`), and the batches `taken`.
        """
        N = len(self.keys)
        pools = [{"number": -1, "starts": [0] * N, "counts": [0] * N, "taken": 0}]
        if not self.is_mixed:
            pools = [{"number": -1, "starts": [0], "counts": [0], "taken": 0} for _ in self.keys]
        return {"names": self.mixture.names, "owed": [0.0] * N, "seen": [0] * N, "pools": pools}

    def plan(
        self,
        state: State,
        updates: range,
        batches_per_update: int,
        losses: Mapping[str, float] | None = None,
    ) -> tuple[list[Batch], State]:
        """The batches of `updates`, and the state after them; `state` is left as it is."""
        state = copy.deepcopy(state)
        batches = []
        for update in updates:
            shares = self.mixture.shares(update, losses)
            for _ in range(batches_per_update):
                rows = self._next_batch(state, shares)
                when = np.full((len(rows), 1), update)
                batches.append(np.concatenate([rows, when], axis=1))
        return batches, state

    def _next_batch(self, state: State, shares: Shares) -> Batch:
        if self.is_mixed:
            rows = self._take(state, 0, shares)
        else:
            wanted = np.where(shares > 0, np.array(state["owed"]) + shares, -np.inf)
            chosen = int(wanted.argmax())
            rows = self._take(state, chosen, shares)
            owed = np.array(state["owed"]) + shares * len(rows)
            owed[chosen] -= len(rows)
            state["owed"] = owed.tolist()
        for stream, count in zip(*np.unique(rows[:, 0], return_counts=True), strict=True):
            state["seen"][stream] += int(count)
        return rows

    def _take(self, state: State, which: int, shares: Shares) -> Batch:
        """The next batch of a pool; a new pool where it is used up."""
        pool = state["pools"][which]
        batches = self._batches(which, pool)
        while pool["taken"] >= len(batches):
            self._open(state, which, shares)
            batches = self._batches(which, pool)
        pool["taken"] += 1
        batch: Batch = batches[pool["taken"] - 1]
        return batch

    def _open(self, state: State, which: int, shares: Shares) -> None:
        pool = state["pools"][which]
        pool["starts"] = [
            start + n for start, n in zip(pool["starts"], pool["counts"], strict=True)
        ]
        if self.is_mixed:
            total = self._pool_size(float(shares @ self.mean_lengths))
            counts, owed = deal(np.array(state["owed"]) + shares * total, shares > 0, total)
            pool["counts"], state["owed"] = counts.tolist(), owed.tolist()
        else:
            pool["counts"] = [self._pool_size(float(self.mean_lengths[which]))]
        pool["number"], pool["taken"] = pool["number"] + 1, 0

    def _pool_size(self, mean_length: float) -> int:
        size = self.budget.max_sentences or 2**20
        if self.budget.max_tokens is not None:
            size = min(size, int(self.budget.max_tokens / mean_length))
        return max(size, 1) * POOL_BATCHES

    def _batches(self, which: int, pool: State) -> list[Batch]:
        """All batches of a pool, (n, 3) each; a pure function of seed and pool."""
        made_from = (pool["number"], pool["starts"], pool["counts"])
        if which not in self._cache or self._cache[which][0] != made_from:
            self._cache[which] = (made_from, self._cut(which, pool))
        return self._cache[which][1]

    def _cut(self, which: int, pool: State) -> list[Batch]:
        streams = range(len(self.keys)) if self.is_mixed else (which,)
        ranges = zip(streams, pool["starts"], pool["counts"], strict=True)
        rows = np.concatenate([self._rows(*part) for part in ranges])
        number = max(pool["number"], 0)
        generator = np.random.default_rng([self.seed, which, number])
        rows = generator.permutation(rows[self._longest(rows) >= 0])
        limits = (self.budget.max_tokens or 2**62, self.budget.max_sentences)
        cuts = list(batch_by_tokens(self._longest(rows).tolist(), *limits))
        return [rows[cuts[n]] for n in generator.permutation(len(cuts))]

    def _rows(self, stream: int, start: int, count: int) -> Batch:
        """(count, 3): stream, row and pass of places in the endless row of a stream."""
        rows = np.empty((count, 3), np.int64)
        size = self.mixture.streams[stream].size
        rows[:, 0] = stream
        rows[:, 2], places = np.divmod(np.arange(start, start + count), size)
        for number in np.unique(rows[:, 2]):
            is_in = rows[:, 2] == number
            key = np.random.SeedSequence([self.seed, self.keys[stream], int(number)])
            salt = int(key.generate_state(1, np.uint64)[0])
            rows[is_in, 1] = permuted(places[is_in], size, salt)
        return rows

    def _longest(self, rows: Batch) -> NDArray[np.int64]:
        """The longer side of each row, or -1 if it does not fit."""
        result = np.empty(len(rows), np.int64)
        for stream in np.unique(rows[:, 0]):
            is_in = rows[:, 0] == stream
            source, target = (side[rows[is_in, 1]] for side in self.lengths[stream])
            limits = self.budget.max_length
            fits = (source <= limits[0]) & (target <= limits[1])
            result[is_in] = np.where(fits, np.maximum(source, target), -1)
        return result


def deal(
    owed: Shares, may: NDArray[np.bool_], total: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give `total` whole sentences to those that are owed, and what remains owed.

    Whole parts first, then one each by the largest remainder; `may` says who takes part.
    """
    wanted = np.where(may, np.maximum(owed, 0), 0)
    wanted *= total / wanted.sum()
    counts = np.floor(wanted).astype(np.int64)
    order = np.argsort(np.where(may, counts - wanted, np.inf), kind="stable")
    counts[order[: total - int(counts.sum())]] += 1
    return counts, owed - counts
