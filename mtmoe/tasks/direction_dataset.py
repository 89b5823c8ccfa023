"""Sentence pairs of many directions as one fairseq dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fairseq.data import FairseqDataset, data_utils
from numpy.typing import NDArray
from torch import Tensor

from mtmoe.data.sampling import sample_epoch
from mtmoe.data.vocabulary import EOS, PAD
from mtmoe.errors import DataError


@dataclass(frozen=True)
class DirectionData:
    """The sentences of one direction; each side is indexed and has `sizes`, ends with EOS."""

    name: str  # "en-de"
    source: Any
    target: Any | None  # None: to be translated
    source_tags: Sequence[int]
    target_tag: int


class DirectionDataset(FairseqDataset):
    """Directions laid end to end; a batch may mix them, since every sentence carries its tags.

    Mixed batches make each update see all languages, and with them all experts. Outside of training
    (`is_grouped`) a batch has one direction, because fairseq's generator starts all hypotheses of a
    batch with one symbol.

    Args:
        numbers: the number of each direction among those of the task, for the log.
        temperature: see `mtmoe.data.sampling`; used in training only.
    """

    def __init__(
        self,
        directions: Sequence[DirectionData],
        numbers: Sequence[int],
        temperature: float = 1.0,
        seed: int = 1,
        is_grouped: bool = False,
    ) -> None:
        super().__init__()
        self.directions = directions
        self.numbers = numbers
        self.temperature, self.seed, self.is_grouped = temperature, seed, is_grouped
        self.sizes_of = [len(d.source) for d in directions]
        self.starts = np.cumsum([0, *self.sizes_of])
        extra = [len(d.source_tags) for d in directions]
        source = [d.source.sizes + n for d, n in zip(directions, extra, strict=True)]
        target = [(d.target or d.source).sizes for d in directions]
        self.source_sizes = np.concatenate([*source, np.empty(0, np.int64)]).astype(np.int64)
        self.target_sizes = np.concatenate([*target, np.empty(0, np.int64)]).astype(np.int64)
        self.epoch = 1
        self.batch_multiple = 1  # of the number of batches; ranks x update_freq in training

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        which = int(np.searchsorted(self.starts, index, side="right")) - 1
        data, row = self.directions[which], int(index - self.starts[which])
        return make_sample(data, int(index), data.source[row], row, self.numbers[which])

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """See `collate`."""
        return collate(samples)

    def num_tokens(self, index: int) -> int:
        """The longer side's length in tokens."""
        return int(max(self.source_sizes[index], self.target_sizes[index]))

    def num_tokens_vec(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The longer side's length of each."""
        return np.maximum(self.source_sizes[indices], self.target_sizes[indices])

    def size(self, index: int) -> tuple[int, int]:
        """Lengths of source, tags included, and target."""
        return int(self.source_sizes[index]), int(self.target_sizes[index])

    def ordered_indices(self) -> NDArray[np.int64]:
        """This epoch's sentences, like lengths together; equal lengths in random order."""
        if self.is_grouped:
            chosen = np.arange(len(self))
            direction = np.searchsorted(self.starts, chosen, side="right")
            return np.lexsort((self.source_sizes, self.target_sizes, direction))
        chosen = sample_epoch(self.sizes_of, self.temperature, self.seed, self.epoch)
        chosen = np.random.default_rng([self.seed, self.epoch, 1]).permutation(chosen)
        longest = self.num_tokens_vec(chosen)
        return chosen[np.lexsort((self.source_sizes[chosen], self.target_sizes[chosen], longest))]

    def batch_by_size(
        self,
        indices: NDArray[np.int64],
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[NDArray[np.int64]]:
        """Batches of like lengths; of one direction each if grouped.

        fairseq leaves out what does not fill a multiple at the end; here it makes own batches.

        Raises:
            DataError: there are no sentences: all are too long.
        """
        if not len(indices):
            raise DataError(
                "text must have sentences that are no longer than --max-tokens and the model's "
                "positions, but has none. Raise --max-tokens."
            )
        direction = np.searchsorted(self.starts, indices, side="right")
        cuts = np.flatnonzero(np.diff(direction)) + 1 if self.is_grouped else np.empty(0, int)
        batches: list[NDArray[np.int64]] = []
        for part in np.split(indices, cuts):
            full = super().batch_by_size(
                part, max_tokens, max_sentences, required_batch_size_multiple
            )
            rest = part[sum(map(len, full)) :]
            batches += [*full, *super().batch_by_size(rest, max_tokens, max_sentences)]
        return split_to_multiple(batches, self.batch_multiple)

    def filter_indices_by_size(
        self, indices: NDArray[np.int64], max_sizes: Any
    ) -> tuple[NDArray[np.int64], list[int]]:
        """The indices whose both sides fit, and the others."""
        limits = max_sizes if isinstance(max_sizes, tuple) else (max_sizes, max_sizes)
        fits = np.ones(len(indices), dtype=bool)
        for sizes, limit in zip((self.source_sizes, self.target_sizes), limits, strict=True):
            if limit is not None:
                fits &= sizes[indices] <= limit
        return indices[fits], indices[~fits].tolist()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose sentences `ordered_indices` gives."""
        self.epoch = epoch

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """Only what is not sampled anew in each epoch."""
        return self.is_grouped

    @property
    def supports_prefetch(self) -> bool:
        """The files are mapped into memory."""
        return False


def make_sample(
    data: DirectionData, index: int, source: Tensor, row: int, number: int
) -> dict[str, Any]:
    """One sentence with its tags, as `collate` takes it.

    Args:
        source: (n,) int64, EOS included, without tags.
        number: of the direction among those of the task.
    """
    return {
        "id": index,
        "source": torch.cat([torch.tensor(data.source_tags), source]),
        "target": None if data.target is None else data.target[row],
        "target_tag": data.target_tag,
        "direction": number,
    }


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch as fairseq passes it around; target and decoder input are padded on the right.

    Returns:
        net_input: src_tokens (B, S), src_lengths (B,), prev_output_tokens (B, S'), int64;
        target: (B, S') int64; direction: (B,) int64; target_tag: int of the first sentence.
    """
    if not samples:
        return {}
    source = data_utils.collate_tokens([s["source"] for s in samples], PAD)
    lengths = torch.tensor([len(s["source"]) for s in samples])
    batch: dict[str, Any] = {
        "id": torch.tensor([s["id"] for s in samples]),
        "nsentences": len(samples),
        "ntokens": int(lengths.sum()),
        "net_input": {"src_tokens": source, "src_lengths": lengths},
        "target": None,
        "direction": torch.tensor([s["direction"] for s in samples]),
        "target_tag": samples[0]["target_tag"],
    }
    if samples[0]["target"] is not None:
        targets = [s["target"] for s in samples]
        batch["target"] = data_utils.collate_tokens(targets, PAD)
        batch["ntokens"] = sum(len(t) for t in targets)
        tags = [s["target_tag"] for s in samples]
        batch["net_input"]["prev_output_tokens"] = shift_right(batch["target"], tags)
    return batch


def split_to_multiple(batches: list[NDArray[np.int64]], multiple: int) -> list[NDArray[np.int64]]:
    """Halve the largest batches until their number is a multiple.

    A rank without a batch would get fairseq's dummy, which zeroes the rank's whole sample size.
    Batches of one sentence stay whole, so a handful of sentences may miss the multiple.
    """
    batches = list(batches)
    while len(batches) % multiple and max(map(len, batches)) > 1:
        largest = max(range(len(batches)), key=lambda n: len(batches[n]))
        half = len(batches[largest]) // 2
        batches[largest : largest + 1] = [batches[largest][:half], batches[largest][half:]]
    return batches


def shift_right(target: Tensor, tags: Sequence[int]) -> Tensor:
    """Decoder input of `target`, (B, S): the language tag first, the end symbol left out."""
    shifted = target.roll(1, dims=1)
    shifted[:, 0] = torch.tensor(tags)
    return shifted.masked_fill(shifted == EOS, PAD)
