"""Multi-head attention, over a whole sentence or one position at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmoe.config import TransformerConfig
from mtmoe.errors import LayoutError
from mtmoe.modules.linear import ColumnLinear, RowLinear
from mtmoe.parallel.collectives import sum_gradient
from mtmoe.parallel.mesh import ONE_RANK, Axis


@dataclass
class AttentionCache:
    """Keys and values of one attention that later positions will read, (B, H, S, D / H) each."""

    key: Tensor | None = None
    value: Tensor | None = None

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add new positions; returns all keys and values so far."""
        if self.key is not None and self.value is not None:
            key = torch.cat([self.key, key], dim=2)
            value = torch.cat([self.value, value], dim=2)
        self.key, self.value = key, value
        return key, value

    def select(self, rows: Tensor) -> None:
        """Keep the sentences (or hypotheses) `rows`, (B',) int64, in that order."""
        if self.key is not None and self.value is not None:
            self.key = self.key.index_select(0, rows)
            self.value = self.value.index_select(0, rows)


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
                f"{config.attention_heads}. Choose another number of either."
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
        B, S, _ = x.shape
        return x.view(B, S, -1, self.head_dim).transpose(1, 2)
