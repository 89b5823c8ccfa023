"""Tensors in tiles, for a step that needs copies of them but must not copy them whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

ALIGNMENT = 64  # elements; vector instructions round otherwise than what is left at a tensor's end


@dataclass(frozen=True)
class Piece:
    """The elements `start` to `stop` - 1 of the flat tensor number `index`."""

    index: int
    start: int
    stop: int


def cut_tiles(sizes: Sequence[int], tile: int) -> Iterator[list[Piece]]:
    """Cut flat tensors of `sizes` elements into lists of pieces, each of at most `tile` elements.

    Large tensors are cut, at multiples of `ALIGNMENT`, so that each element is rounded as in the
    whole tensor; small ones travel together. Every element is in one piece, in order.
    """
    pieces: list[Piece] = []
    room = tile
    for index, size in enumerate(sizes):
        start = 0
        while start < size:
            length = min(size - start, room)
            if length < size - start:
                length -= length % ALIGNMENT
            if length == 0:
                yield pieces
                pieces, room = [], tile
                continue
            pieces.append(Piece(index, start, start + length))
            start, room = start + length, room - length
    if pieces:
        yield pieces


@dataclass(frozen=True)
class Operand:
    """One of the four tensors that Adam reads of each parameter: weight, gradient, two averages."""

    tensors: list[Tensor]  # flat, one a parameter
    buffer: Tensor | None = (
        None  # flat; where pieces are copied for the step; None: worked on there
    )
    is_result: bool = True  # False for gradients

    def load(self, pieces: list[Piece]) -> list[Tensor]:
        """The pieces, ready for the step."""
        views = self._views(pieces)
        if self.buffer is None:
            return views
        lengths = [piece.stop - piece.start for piece in pieces]
        copies = list(self.buffer[: sum(lengths)].split(lengths))
        for copy, view in zip(copies, views, strict=True):
            copy.copy_(view, non_blocking=True)
        return copies

    def store(self, pieces: list[Piece], updated: list[Tensor]) -> None:
        """Bring the updated pieces back."""
        if self.buffer is not None and self.is_result:
            for view, copy in zip(self._views(pieces), updated, strict=True):
                view.copy_(copy)

    def _views(self, pieces: list[Piece]) -> list[Tensor]:
        return [self.tensors[piece.index][piece.start : piece.stop] for piece in pieces]
