"""Which positions of a batch are tokens, and what routers may know of their sentences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

KEYS = 16  # float32 numbers that a CPU takes at a time


@dataclass(frozen=True)
class Tokens:
    """The real tokens of a (B, S) batch, in the forms that attention and routing need."""

    shape: tuple[int, int]  # (B, S)
    visible: Tensor | None = None  # (B, 1, 1, S) bool for attention; None: all are real
    real: Tensor | None = None  # (T,) int64 flat positions b * S + s; None if all are real
    languages: Tensor | None = None  # (B, 2) int64 source and target, for routers that read them

    @staticmethod
    def of(ids: Tensor, padding: int, languages: Tensor | None = None) -> Tokens:
        """The tokens of `ids`, (B, S) int64, that hold `padding` where none is."""
        shape = (ids.shape[0], ids.shape[1])
        is_real = ids != padding
        if bool(is_real.all()):
            return Tokens(shape, languages=languages)
        flat = is_real.flatten().nonzero().squeeze(1)
        return Tokens(shape, is_real[:, None, None, :], flat, languages)

    def __len__(self) -> int:
        """T."""
        return self.shape[0] * self.shape[1] if self.real is None else self.real.shape[0]

    def select(self, rows: Tensor) -> Tokens:
        """What attention and routers' languages need of the sentences `rows`, (B',) int64."""
        parts = (self.visible, self.languages)
        visible, languages = (t if t is None else t.index_select(0, rows) for t in parts)
        return Tokens((rows.shape[0], self.shape[1]), visible, None, languages)

    def sentence(self, device: torch.device) -> Tensor:
        """(T,) int64: the sentence of each token."""
        B, S = self.shape
        if self.real is not None:
            return self.real // S
        return torch.arange(B, device=device).repeat_interleave(S)

    @cached_property
    def _place(self) -> Tensor:
        """(B * S,) int64: where each position is among the real ones; 0 for the others."""
        assert self.real is not None
        place = self.real.new_zeros(self.shape[0] * self.shape[1])
        place[self.real] = torch.arange(len(self.real), device=place.device)
        return place

    def gather(self, x: Tensor) -> Tensor:
        """(B, S, D) to the (T, D) real tokens."""
        flat = x.reshape(-1, x.shape[-1])
        return flat if self.real is None else flat.index_select(0, self.real)

    def map_real(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """`function` of each position of `x`, (B, S, D).

        In inference, of the real ones only; others get the outputs of some real one, which is
        faster than zeros.
        """
        if self.real is None or not len(self.real) or not torch.is_inference_mode_enabled():
            return function(x)
        y = function(self.gather(x))
        return y.index_select(0, self._place).view(*self.shape, y.shape[-1])

    def scatter(self, y: Tensor) -> Tensor:
        """(T, D) to (B, S, D), 0 at padding."""
        B, S = self.shape
        if self.real is not None:
            y = y.new_zeros(B * S, y.shape[1]).index_copy_(0, self.real, y)
        return y.view(B, S, y.shape[1])


def pad_in_inference(ids: Tensor, padding: int) -> Tensor:
    """(B, S) int64 with padding behind, to a multiple of `KEYS` positions; else as it is.

    How attention sums the numbers of a sentence then does not depend on the longest one beside it.
    """
    if not torch.is_inference_mode_enabled():
        return ids
    return F.pad(ids, (0, -ids.shape[1] % KEYS), value=padding)


def read_languages(source: Tensor, padding: int, num_languages: int, vocab_size: int) -> Tensor:
    """The languages that the tags before each source sentence name.

    Tags are the vocabulary's last symbols. The first token names the source language (or the target
    if that is the only tag), and the second one the target if it is a tag.

    Args:
        source: (B, S) int64, padded on either side.

    Returns:
        (B, 2) int64 numbers of the source and target language, from 0.
    """
    first = (source != padding).int().argmax(1, keepdim=True)  # (B, 1)
    second = (first + 1).clamp(max=source.shape[1] - 1)
    numbers = source.gather(1, torch.cat([first, second], 1)) - (vocab_size - num_languages)
    return torch.where(numbers < 0, numbers[:, :1], numbers).clamp(min=0)
