"""Multi-head attention, over a whole sentence or one position at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmoe.config import TransformerConfig
from mtmoe.errors import LayoutError
from mtmoe.modules.linear import ColumnLinear, RowLinear
from mtmoe.modules.tokens import Tokens
from mtmoe.ops.cached_attention import attend
from mtmoe.parallel.collectives import sum_gradient
from mtmoe.parallel.fitting import divisors, multiples_near
from mtmoe.parallel.mesh import ONE_RANK, Axis

GROWTH = 32  # positions, at least, that a cache gets more room for at a time


class TargetCache:
    """Keys and values of the target so far, as `attend` reads them: (B, H, S * K, d), d = D / H.

    K hypotheses of a sentence lie in K slots side by side: position s of slot k is row s * K + k.
    Which slots a hypothesis goes back over, `DecoderCache` knows. Both tensors have room for some
    more positions, so that most steps allocate nothing. For inference: gradients do not pass.

    Args:
        width: K.
    """

    def __init__(self, width: int = 1) -> None:
        self.width = width
        self._key, self._value = _Positions(width), _Positions(width)

    @property
    def num_rows(self) -> int:
        """B; 0 before the first position."""
        return self._key.num_rows

    def append(self, key: Tensor, value: Tensor, num_sentences: int) -> tuple[Tensor, Tensor]:
        """Add positions of K' hypotheses a sentence, (B * K', H, S', d) each; returns all so far.

        K' is the width, or below it in the first call, which fills the first slots. With a width
        of 1, each hypothesis counts as a sentence.
        """
        B = key.shape[0] if self.width == 1 else num_sentences
        return self._key.append(key, B), self._value.append(value, B)

    def select(self, rows: Tensor) -> None:
        """Keep the sentences (or, with a width of 1, hypotheses) `rows`, (B',), in that order."""
        self._key.select(rows)
        self._value.select(rows)


@dataclass
class MemoryCache:
    """Keys and values of the source, (B, H, S, d) each; None before the first step."""

    key: Tensor | None = None
    value: Tensor | None = None

    def select(self, rows: Tensor) -> None:
        """Keep the sentences `rows`, (B',) int64, in that order."""
        if self.key is not None and self.value is not None:
            self.key, self.value = self.key.index_select(0, rows), self.value.index_select(0, rows)


class _Positions:
    """A (B, H, S, K, d) tensor that grows along S."""

    def __init__(self, width: int) -> None:
        self._width, self._length = width, 0
        self._memory: Tensor | None = None  # (B, H, S + room, K, d)
        self._spare: Tensor | None = None  # as large, at least: takes what `select` keeps

    @property
    def num_rows(self) -> int:
        return 0 if self._memory is None else self._memory.shape[0]

    def append(self, new: Tensor, B: int) -> Tensor:
        start, K = self._length, self._width
        new = new.view(B, -1, *new.shape[1:]).permute(0, 2, 3, 1, 4)  # (B, H, S', K', d)
        self._length += new.shape[2]
        if self._memory is None or self._memory.shape[2] < self._length:
            self._grow(new, start)
        assert self._memory is not None
        self._memory[:, :, start : self._length, : new.shape[3]] = new
        if new.shape[3] < K:  # numbers, even where nobody looks
            self._memory[:, :, start : self._length, new.shape[3] :] = 0
        return self._memory[:, :, : self._length].flatten(2, 3)

    def _grow(self, new: Tensor, length: int) -> None:
        B, H, S, _, d = new.shape
        room = length + S + max(GROWTH, length // 2)
        larger = new.new_empty(B, H, room, self._width, d)
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
        self.joint: nn.Module | None = None  # in inference: all maps that read the same, as one
        self.cache_dtype: torch.dtype | None = None  # in inference, if one pass reads the cache

    def project(self, x: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, H, S, D / H) each, of `x`, (B, S, D).

        Args:
            tokens: what is real in `x`; what is not may become anything finite.
        """
        if self.joint is not None:
            query, key, value = self._split_heads(tokens.map_real(self.joint, x)).chunk(3, 1)
            return query, key, value
        return self.project_query(x), *self.project_memory(x, tokens)

    def project_query(self, x: Tensor) -> Tensor:
        """Queries, (B, H, S, D / H), of `x`, (B, S, D)."""
        return self._split_heads(self.query(sum_gradient(x, self.axis)))

    def project_memory(self, memory: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Keys and values, (B, H, S, D / H) each, of `memory`, (B, S, D); see `project`."""
        if self.joint is not None:
            key, value = self._split_heads(tokens.map_real(self.joint, memory)).chunk(2, 1)
            return key, value
        memory = sum_gradient(memory, self.axis)
        return self._split_heads(self.key(memory)), self._split_heads(self.value(memory))

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        visible: Tensor | None = None,
        is_causal: bool = False,
        tokens: Tokens | None = None,
    ) -> Tensor:
        """Attend from queries to keys and values.

        Args:
            query: (B, H, S_q, D / H).
            key: (B, H, S_k, D / H), as `value`.
            visible: broadcastable to (B, H, S_q, S_k): bool, True where attention is allowed; or of
                the dtype of `query`, added to the scores. None: everywhere.
            is_causal: position q sees keys 0 to q only; not together with `visible`.
            tokens: the queries that are real; outputs of others may be anything finite. None: all.

        Returns:
            (B, S_q, D)
        """
        dropout = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(query, key, value, visible, dropout, is_causal)
        heads = heads.transpose(1, 2).flatten(2)
        out: Tensor = self.out(heads) if tokens is None else tokens.map_real(self.out, heads)
        return out

    def look_up(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
        """As `forward`, to keys and values of a cache: those that `to_cache` has given."""
        if self.cache_dtype is None:
            heads: Tensor = self(query, key, value, visible)
            return heads
        out: Tensor = self.out(attend(query, key, value, visible))
        return out

    def to_cache(self, x: Tensor) -> Tensor:
        """Keys or values, (B, H, S, d), as a cache is to hold them."""
        return x if self.cache_dtype is None else x.to(self.cache_dtype)

    def _split_heads(self, x: Tensor) -> Tensor:
        B, S, width = x.shape
        return x.view(B, S, width // self.head_dim, self.head_dim).transpose(1, 2)
