"""One pre-norm layer of the encoder and one of the decoder."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from mtmoe.config import ChooseBy, TransformerConfig
from mtmoe.modules.attention import Attention, AttentionCache
from mtmoe.modules.experts import FeedForward
from mtmoe.modules.moe_layer import MoELayer
from mtmoe.modules.router import Routing
from mtmoe.modules.tokens import Tokens
from mtmoe.ops.routing import RouterKey
from mtmoe.parallel.mesh import ONE_PROCESS, Mesh


@dataclass(frozen=True)
class LayerKind:
    """What a layer must know beside the config."""

    moe_index: int | None  # number among all MoE layers of the network; None: dense
    choose_by: ChooseBy = ChooseBy.token
    num_languages: int = 0
    mesh: Mesh = ONE_PROCESS


class FeedForwardBlock(nn.Module):
    """Norm, dense FFN or experts, dropout, residual."""

    def __init__(self, config: TransformerConfig, kind: LayerKind) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.embed_dim)
        self.is_moe = kind.moe_index is not None
        self.ffn = (
            FeedForward(config, config.ffn_dim, kind.mesh.tensor)
            if kind.moe_index is None
            else MoELayer(
                config.for_layer(kind.moe_index),
                kind.moe_index,
                kind.choose_by,
                kind.num_languages,
                kind.mesh,
            )
        )
        self.dropout = config.dropout

    def forward(
        self, x: Tensor, tokens: Tokens, key: RouterKey | None
    ) -> tuple[Tensor, Routing | None]:
        """(B, S, D) to the same, and the routing of an MoE layer."""
        routing = None
        if self.is_moe:
            y, routing = self.ffn(self.norm(x), tokens, key)
        else:
            y = self.ffn(self.norm(x))
        return x + F.dropout(y, self.dropout, self.training), routing


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, config: TransformerConfig, kind: LayerKind) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.embed_dim)
        self.attention = Attention(config, kind.mesh.tensor)
        self.feed_forward = FeedForwardBlock(config, kind)
        self.dropout = config.dropout

    def forward(
        self, x: Tensor, tokens: Tokens, key: RouterKey | None
    ) -> tuple[Tensor, Routing | None]:
        """(B, S, D) to the same, and the routing of an MoE layer."""
        normed = self.attention_norm(x)
        y = self.attention(normed, *self.attention.project_memory(normed), tokens.visible)
        x = x + F.dropout(y, self.dropout, self.training)
        out: tuple[Tensor, Routing | None] = self.feed_forward(x, tokens, key)
        return out


@dataclass
class LayerCache:
    """What one decoder layer keeps between positions."""

    target: AttentionCache = field(default_factory=AttentionCache)
    memory: AttentionCache = field(default_factory=AttentionCache)


class DecoderLayer(nn.Module):
    """Self-attention, attention to the source, and feed-forward."""

    def __init__(self, config: TransformerConfig, kind: LayerKind) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.embed_dim)
        self.attention = Attention(config, kind.mesh.tensor)
        self.cross_norm = nn.LayerNorm(config.embed_dim)
        self.cross_attention = Attention(config, kind.mesh.tensor)
        self.feed_forward = FeedForwardBlock(config, kind)
        self.dropout = config.dropout

    def forward(
        self,
        x: Tensor,
        tokens: Tokens,
        memory: Tensor,
        source: Tokens,
        key: RouterKey | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[Tensor, Routing | None]:
        """(B, S, D) to the same, and the routing of an MoE layer.

        With a cache, `x` holds the positions after those that the cache has seen. Several rows of
        `x` may share a row of `memory`: those of one sentence's hypotheses, side by side.
        """
        x = x + F.dropout(self._attend_target(x, cache), self.dropout, self.training)
        y = self._attend_source(x, memory, source, cache)
        x = x + F.dropout(y, self.dropout, self.training)
        out: tuple[Tensor, Routing | None] = self.feed_forward(x, tokens, key)
        return out

    def _attend_target(self, x: Tensor, cache: LayerCache | None) -> Tensor:
        normed = self.attention_norm(x)
        key, value = self.attention.project_memory(normed)
        if cache is not None:
            is_first = cache.target.key is None
            assert is_first or x.shape[1] == 1, "after the first call, one position at a time"
            key, value = cache.target.append(key, value)
        out: Tensor = self.attention(normed, key, value, is_causal=x.shape[1] > 1)
        return out

    def _attend_source(
        self, x: Tensor, memory: Tensor, source: Tokens, cache: LayerCache | None
    ) -> Tensor:
        attention = self.cross_attention
        if cache is None:
            key, value = attention.project_memory(memory)
        else:
            if cache.memory.key is None:
                cache.memory.append(*attention.project_memory(memory))
            assert cache.memory.key is not None
            assert cache.memory.value is not None
            key, value = cache.memory.key, cache.memory.value
        B, (rows, S, D) = key.shape[0], x.shape
        per_sentence = max(rows // max(B, 1), 1)  # hypotheses of one: queries of one row
        normed = self.cross_norm(x).view(B, per_sentence * S, D)
        out: Tensor = attention(normed, key, value, source.visible).view(x.shape)
        return out
