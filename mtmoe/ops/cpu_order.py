"""The tokens of a batch in the order of their experts, all of them, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mtmoe.ops.buffers import BufferPool
from mtmoe.ops.dispatch import Permutation


@dataclass(frozen=True)
class TokenOrder:
    """T tokens of N positions, sorted by expert; those without one come last."""

    token: Tensor  # (T,) int64: row r is token[r]
    row: Tensor  # (T,) int64: the inverse
    position: Tensor  # (T,) int64: where row r stands among the N positions
    place: Tensor  # (N,) int64: the row of each position; T where no token is
    sizes: list[int]  # E numbers of rows, which sum to R <= T

    @staticmethod
    def of(permutation: Permutation, real: Tensor | None, num_positions: int) -> TokenOrder:
        """The order that `permutation` gives to tokens with one choice each.

        Args:
            real: (T,) int64 positions of the tokens; None: all are tokens.
        """
        token, row = permutation.choice, permutation.row.flatten()
        T, sizes = row.shape[0], permutation.counts.tolist()
        if token.shape[0] < T:
            without = (row < 0).nonzero().squeeze(1)
            row = row.index_copy(0, without, torch.arange(token.shape[0], T))
            token = torch.cat([token, without])
        if real is None:
            return TokenOrder(token, row, token, row, sizes)
        place = torch.full((num_positions,), T).index_copy_(0, real, row)
        return TokenOrder(token, row, real.index_select(0, token), place, sizes)

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.token.shape[0]

    @property
    def num_rows(self) -> int:
        """R, the tokens that have an expert."""
        return sum(self.sizes)

    def sort(self, x: Tensor, out: Tensor) -> Tensor:
        """(N, ...) to (T, ...) rows, written into `out`."""
        return torch.index_select(x, 0, self.position, out=out)

    def restore(self, rows: Tensor) -> Tensor:
        """(T + 1, ...) rows, the last one 0, to (N, ...)."""
        return rows.index_select(0, self.place)

    def new_rows(self, like: Tensor, pool: BufferPool) -> Tensor:
        """Memory for `restore`: (T + 1, D), the last row 0."""
        rows = pool.empty("sum", like, self.num_tokens + 1, like.shape[1])
        rows[-1].zero_()
        return rows

    def blocks(
        self, rows: tuple[Tensor, ...], stacks: tuple[Tensor, ...]
    ) -> Iterator[tuple[Tensor, ...]]:
        """What belongs to an expert, for each expert that has rows.

        Args:
            rows: (R or more, ...) tensors, of which it gets its rows.
            stacks: (E, ...) tensors, of which it gets one part each.
        """
        R = self.num_rows
        split = [torch.split(tensor[:R], self.sizes) for tensor in rows]
        parts = zip(*split, *(stack.unbind() for stack in stacks), strict=True)
        return (part for size, part in zip(self.sizes, parts, strict=True) if size)
