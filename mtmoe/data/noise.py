"""What denoising does to a sentence (BART, Lewis et al. 2019, arXiv:1910.13461).

All functions take token ids (n,) int64 without the end symbol, and a generator; they change nothing
in place. How many tokens are concerned is exact (`count_of`), which ones is random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtmoe.config import NoiseConfig
from mtmoe.data.schedule import Schedule

Ids = NDArray[np.int64]
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", "।", "۔", "؟", "።")


def noise_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sentence in one epoch, equal on every machine and rank."""
    return np.random.default_rng([seed, epoch, index])


def count_of(ratio: float, size: int) -> int:
    """`ratio` of `size` tokens, rounded half up."""
    return min(size, int(ratio * size + 0.5))


@dataclass(frozen=True)
class Filler:
    """What stands in place of masked tokens: the mask, or now and then a random piece."""

    mask: int
    first_piece: int
    num_pieces: int
    random_ratio: float

    def draw(self, count: int, generator: np.random.Generator) -> Ids:
        """(count,) ids; each is a uniformly random piece with probability `random_ratio`."""
        is_random = generator.random(count) < self.random_ratio
        pieces = self.first_piece + generator.integers(self.num_pieces, size=count)
        return np.where(is_random, pieces, self.mask).astype(np.int64)


def infill_spans(
    ids: Ids, ratio: float, mean_length: float, filler: Filler, generator: np.random.Generator
) -> Ids:
    """Put one filler in place of each of some spans that hold `ratio` of the tokens together.

    Lengths are Poisson, the last one cut to fit; a span of length 0 inserts a filler. All
    arrangements of the spans among the remaining tokens are equally likely.
    """
    count = count_of(ratio, len(ids))
    lengths = draw_lengths(count, mean_length, generator)
    num_kept, num_spans = len(ids) - count, len(lengths)
    slots = np.sort(generator.choice(num_kept + num_spans, num_spans, replace=False))
    starts = slots - np.arange(num_spans) + np.cumsum([0, *lengths])[:-1]
    is_kept = np.ones(len(ids), dtype=bool)
    for start, length in zip(starts, lengths, strict=True):
        is_kept[start : start + length] = False
    is_filler = np.zeros(num_kept + num_spans, dtype=bool)
    is_filler[slots] = True
    result = np.empty(len(is_filler), np.int64)
    result[is_filler] = filler.draw(num_spans, generator)
    result[~is_filler] = ids[is_kept]
    return result


def draw_lengths(count: int, mean: float, generator: np.random.Generator) -> list[int]:
    """Poisson lengths, 0 included, that add up to `count`; the last one is cut."""
    lengths: list[int] = []
    left = count
    while left > 0:
        lengths.append(min(int(generator.poisson(mean)), left))
        left -= lengths[-1]
    return lengths


def mask_tokens(ids: Ids, ratio: float, filler: Filler, generator: np.random.Generator) -> Ids:
    """Put a filler in place of each of `ratio` of the tokens; the length stays."""
    count = count_of(ratio, len(ids))
    result = ids.copy()
    places = generator.choice(len(ids), count, replace=False)
    result[places] = filler.draw(count, generator)
    return result


def delete_tokens(ids: Ids, ratio: float, generator: np.random.Generator) -> Ids:
    """Leave out `ratio` of the tokens, but never all."""
    count = min(count_of(ratio, len(ids)), max(len(ids) - 1, 0))
    return np.delete(ids, generator.choice(len(ids), count, replace=False))


def permute_sentences(ids: Ids, is_end: NDArray[np.bool_], generator: np.random.Generator) -> Ids:
    """Put the sentences of a text into random order.

    Args:
        is_end: (V,) whether a symbol ends a sentence.
    """
    parts = np.split(ids, np.flatnonzero(is_end[ids[:-1]]) + 1)
    return np.concatenate([parts[n] for n in generator.permutation(len(parts))])


def ends_sentence(symbols: tuple[str, ...]) -> NDArray[np.bool_]:
    """(V,) whether a symbol ends a sentence, by its last character."""
    return np.array([symbol.endswith(SENTENCE_ENDS) for symbol in symbols])


@dataclass(frozen=True)
class Noise:
    """All that denoising does, in order: permute sentences, delete, then mask."""

    config: NoiseConfig
    mask_ratio: Schedule
    filler: Filler
    is_end: NDArray[np.bool_]  # (V,)
    seed: int

    def apply(self, ids: Ids, epoch: int, index: int, update: int) -> Ids:
        """The noised sentence: a pure function of the arguments and the seed."""
        generator = noise_generator(self.seed, epoch, index)
        if generator.random() < self.config.permutation:
            ids = permute_sentences(ids, self.is_end, generator)
        if self.config.deletion_ratio > 0:
            ids = delete_tokens(ids, self.config.deletion_ratio, generator)
        ratio = self.mask_ratio.at(update)
        if self.config.span_length == 0:
            return mask_tokens(ids, ratio, self.filler, generator)
        return infill_spans(ids, ratio, self.config.span_length, self.filler, generator)
