"""One table for source, target and output, which the ranks of a tensor group share out by rows."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from mtmoe.parallel.collectives import sum_gradient, sum_over
from mtmoe.parallel.mesh import ONE_RANK, Axis
from mtmoe.parallel.slices import local_part


class VocabularyEmbedding(nn.Embedding):
    """V symbols of width D; each of T ranks holds the rows of a range of symbols."""

    tensor_dims: ClassVar[dict[str, int]] = {"weight": 0}

    def __init__(self, vocab_size: int, dim: int, tensor_axis: Axis = ONE_RANK) -> None:
        super().__init__(vocab_size, dim)
        self.axis = tensor_axis

    @property
    def first_symbol(self) -> int:
        """The first of this rank's symbols: ranges have ceil(V / T) of them, the last one fewer."""
        per_rank = -(-self.num_embeddings // self.axis.size)
        return min(self.axis.rank * per_rank, self.num_embeddings)

    def forward(self, ids: Tensor) -> Tensor:
        """(...) int64 to (..., D)."""
        table = local_part(self.weight)
        if self.axis.size == 1:
            return F.embedding(ids, table)
        row = ids - self.first_symbol
        is_here = (row >= 0) & (row < table.shape[0])
        found = F.embedding(row.masked_fill(~is_here, 0), table)
        return sum_over(found * is_here.unsqueeze(-1), self.axis)

    def project(self, states: Tensor) -> Tensor:
        """Logits of decoder states (..., D): (..., V), or of this rank's range of symbols only."""
        return F.linear(sum_gradient(states, self.axis), local_part(self.weight))
