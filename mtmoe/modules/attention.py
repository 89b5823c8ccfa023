"""Multi-head attention, over a whole sentence or one position at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmoe.config import TransformerConfig
from mtmoe.errors import LayoutError
from mtmoe.modules.linear import ColumnLinear, RowLinear
from mtmoe.parallel.collectives import sum_gradient
from mtmoe.parallel.fitting import divisors, multiples_near
from mtmoe.parallel.mesh import ONE_RANK, Axis

GROWTH = 32  # positions that a cache gets more room for at a time


class AttentionCache:
    """Keys and values of one attention that later positions will read, (B, H, S, D / H) each.

    Both lie in memory with room for some more positions, and a second piece of memory takes what
    `select` keeps, so that a step allocates nothing. For inference: gradients do not pass.
    """

    def __init__(self) -> None:
        self._key, self._value = _Positions(), _Positions()

    @property
    def key(self) -> Tensor | None:
        """The keys so far; None: none."""
        return self._key.filled

    @property
    def value(self) -> Tensor | None:
        """The values so far; None: none."""
        return self._value.filled

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add new positions; returns all keys and values so far."""
        return self._key.append(key), self._value.append(value)

    def select(self, rows: Tensor) -> None:
        """Keep the sentences (or hypotheses) `rows`, (B',) int64, in that order."""
        self._key.select(rows)
        self._value.select(rows)


class _Positions:
    """A (B, H, S, d) tensor that grows along S."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None  # (B, H, S + room, d)
        self._spare: Tensor | None = None  # as large, at least
        self._length = 0

    @property
    def filled(self) -> Tensor | None:
        return None if self._memory is None else self._memory[:, :, : self._length]

    def append(self, new: Tensor) -> Tensor:
        start, self._length = self._length, self._length + new.shape[2]
        if self._memory is None and new.shape[2] > 1:
            self._memory = new  # a source: nothing will follow
            return new
        if self._memory is None or self._memory.shape[2] < self._length:
            self._grow(new, start)
        assert self._memory is not None
        self._memory[:, :, start : self._length] = new
        return self._memory[:, :, : self._length]

    def _grow(self, new: Tensor, length: int) -> None:
        B, H, S, d = new.shape
        larger = new.new_empty(B, H, length + S + GROWTH, d)
        if self._memory is not None:
            larger[:, :, :length] = self._memory[:, :, :length]
        self._memory, self._spare = larger, None

    def select(self, rows: Tensor) -> None:
        if self._memory is None:
            return
        num_rows, spare = rows.shape[0], self._spare
        if spare is None or spare.shape[0] < num_rows or spare.dtype != self._memory.dtype:
            spare = self._memory.new_empty(num_rows, *self._memory.shape[1:])
        kept = torch.index_select(self._memory, 0, rows, out=spare[:num_rows])
        self._memory, self._spare = kept, self._memory


class Attention(nn.Module):
    """Scaled dot-product attention of H heads (Vaswani et al. 2017).

    Args:
        tensor_axis: the ranks that share the heads out; H below is those of this rank.

    Raises:
        LayoutError: the heads do not divide among the ranks.
    """

    def __init__(self, config: TransformerConfig, tensor_axis: Axis = ONE_RANK) -> None:
        super().__init__()
        D, ranks = config.embed_dim, tensor_axis.size
        if config.attention_heads % ranks:
            raise LayoutError(
                f"attention_heads must be a multiple of tensor_parallel_size ({ranks}), but is "
                f"{config.attention_heads}. Use {multiples_near(config.attention_heads, ranks)} "
                f"heads, or tensor_parallel_size {divisors(config.attention_heads, 2 * ranks)}."
            )
        self.axis = tensor_axis
        self.head_dim = D // config.attention_heads
        self.dropout = config.attention_dropout
        self.query = ColumnLinear(D, D)
        # Softmax is blind to it: its gradient is rounding, which Adam would scale up to noise.
        self.key = ColumnLinear(D, D, learns_bias=False)
        self.value = ColumnLinear(D, D)
        self.out = RowLinear(D, D, tensor_axis)

    def project_memory(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, (B, H, S, D / H) each, of `memory`, (B, S, D)."""
        memory = sum_gradient(memory, self.axis)
        return self._split_heads(self.key(memory)), self._split_heads(self.value(memory))

    def forward(
        self,
        x: Tensor,
        key: Tensor,
        value: Tensor,
        visible: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Attend from `x` to keys and values.

        Args:
            x: (B, S_q, D).
            key: (B, H, S_k, D / H), as `value`.
            visible: bool, broadcastable to (B, H, S_q, S_k), True where attention is allowed;
                None: everywhere.
            is_causal: position q sees keys 0 to q only; not together with `visible`.

        Returns:
            (B, S_q, D)
        """
        dropout = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(
            self._split_heads(self.query(sum_gradient(x, self.axis))),
            key,
            value,
            visible,
            dropout,
            is_causal,
        )
        out: Tensor = self.out(heads.transpose(1, 2).flatten(2))
        return out

    def _split_heads(self, x: Tensor) -> Tensor:
        B, S, width = x.shape
        return x.view(B, S, width // self.head_dim, self.head_dim).transpose(1, 2)
