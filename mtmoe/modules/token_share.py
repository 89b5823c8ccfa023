"""The tokens that a rank of a tensor group routes, where the group shares them out.

All ranks of the group hold the same T tokens. Each reads, scores and sends every size-th one, which
saves what routing and dispatch would keep of the others. What depends on all tokens (places in the
experts' queues, the balance loss) is gathered or summed, so that the group routes as one process
does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtmoe.parallel.collectives import RowShares, gather_rows, sum_gradient, sum_over, take_rows
from mtmoe.parallel.deduplicate import split_rows
from mtmoe.parallel.mesh import ONE_RANK, Axis, Mesh


@dataclass(frozen=True)
class TokenShare:
    """T' of T tokens; without `rows`, all of them, and nothing is sent."""

    rows: RowShares | None = None
    axis: Axis = ONE_RANK

    @staticmethod
    def of(num_tokens: int, mesh: Mesh, device: torch.device) -> TokenShare:
        """This rank's share of T tokens that all ranks of its tensor group hold."""
        if not mesh.shard_tokens or mesh.tensor.size == 1:
            return ALL_TOKENS
        counts = torch.full((1,), num_tokens, device=device)
        return TokenShare(split_rows(counts, mesh.tensor), mesh.tensor)

    def take(self, x: Tensor) -> Tensor:
        """(T, D) to (T', D); the group's gradients are gathered."""
        return x if self.rows is None else take_rows(x, self.rows, self.axis)

    def gather(self, x: Tensor) -> Tensor:
        """(T', D) to (T, D), equal on all ranks of the group; a rank's gradient is its share."""
        return x if self.rows is None else gather_rows(x, self.rows, self.axis)

    def select(self, x: Tensor) -> Tensor:
        """(T, ...) to (T', ...), of what needs no gradient or stems from a `weight`."""
        return x if self.rows is None else x.index_select(0, self.rows.mine)

    def sum(self, x: Tensor) -> Tensor:
        """The sum over the group of what each rank made of its tokens."""
        return sum_over(x, self.axis)

    def weight(self, parameter: Tensor) -> Tensor:
        """The same, for use with this rank's tokens: the group's gradients are summed."""
        return sum_gradient(parameter, self.axis)

    def num_tokens(self, own: Tensor) -> int:
        """T, given anything of (T', ...)."""
        return own.shape[0] if self.rows is None else self.rows.place.shape[0]

    def draw(self, own: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform numbers in [0, 1) of the shape of `own`, (T', ...), out of those of T tokens."""
        shape = (self.num_tokens(own), *own.shape[1:])
        return self.select(torch.rand(shape, device=own.device, generator=generator))


ALL_TOKENS = TokenShare()
