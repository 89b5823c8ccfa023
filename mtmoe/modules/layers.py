"""One pre-norm layer of the encoder and one of the decoder."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from mtmoe.config import ChooseBy, TransformerConfig
from mtmoe.modules.attention import Attention, MemoryCache, TargetCache
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
            y = tokens.map_real(self.ffn, self.norm(x))
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
        projected = self.attention.project(self.attention_norm(x), tokens)
        y = self.attention(*projected, tokens.visible, tokens=tokens)
        x = x + F.dropout(y, self.dropout, self.training)
        out: tuple[Tensor, Routing | None] = self.feed_forward(x, tokens, key)
        return out


@dataclass
class LayerCache:
    """What one decoder layer keeps between positions."""

    target: TargetCache = field(default_factory=TargetCache)
    memory: MemoryCache = field(default_factory=MemoryCache)
    visible: Tensor | None = None  # (B, 1, K, S * K) added to scores: which slots each one reads


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
        y = self._attend_target(x, tokens, memory.shape[0], cache)
        x = x + F.dropout(y, self.dropout, self.training)
        y = self._attend_source(x, memory, source, cache)
        x = x + F.dropout(y, self.dropout, self.training)
        out: tuple[Tensor, Routing | None] = self.feed_forward(x, tokens, key)
        return out

    def _attend_target(
        self, x: Tensor, tokens: Tokens, num_sentences: int, cache: LayerCache | None
    ) -> Tensor:
        attention = self.attention
        query, key, value = attention.project(self.attention_norm(x), tokens)
        is_first = cache is None or cache.target.num_rows == 0
        if cache is not None:
            kept = attention.to_cache(key), attention.to_cache(value)
            all_keys, all_values = cache.target.append(*kept, num_sentences)
            if not is_first:
                assert x.shape[1] == 1, "after the first call, one position at a time"
                queries = _side_by_side(query, all_keys.shape[0])
                return attention.look_up(queries, all_keys, all_values, cache.visible).view(x.shape)
        out: Tensor = attention(query, key, value, is_causal=x.shape[1] > 1)
        return out

    def _attend_source(
        self, x: Tensor, memory: Tensor, source: Tokens, cache: LayerCache | None
    ) -> Tensor:
        attention, B, (rows, S, D) = self.cross_attention, memory.shape[0], x.shape
        per_sentence = max(rows // max(B, 1), 1)  # hypotheses of one: queries of one row
        normed = self.cross_norm(x).view(B, per_sentence * S, D)
        query = attention.project_query(normed)
        if cache is None:
            out: Tensor = attention(
                query, *attention.project_memory(memory, source), source.visible
            )
            return out.view(x.shape)
        kept = cache.memory
        if kept.key is None or kept.value is None:
            kept.key, kept.value = (
                attention.to_cache(x).contiguous() for x in attention.project_memory(memory, source)
            )
        return attention.look_up(query, kept.key, kept.value, source.visible).view(x.shape)


def _side_by_side(query: Tensor, num_sentences: int) -> Tensor:
    """(B * K, H, 1, d) queries of hypotheses to (B, H, K, d)."""
    return query.view(num_sentences, -1, *query.shape[1::2]).transpose(1, 2)
