"""The one Transformer: encoder and decoder with MoE on every n-th layer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmoe.config import TransformerConfig
from mtmoe.modules.initialise import initialise
from mtmoe.modules.layers import DecoderLayer, EncoderLayer, LayerCache, TokenMask
from mtmoe.modules.router import Routing


@dataclass(frozen=True)
class Memory:
    """What the decoder reads of the source."""

    states: Tensor  # (B, S, D)
    mask: TokenMask
    routings: tuple[Routing, ...] = ()  # of the encoder's MoE layers, in order

    def select(self, rows: Tensor) -> Memory:
        """The sentences `rows`, (B',) int64, in that order; without routings."""
        visible = self.mask.visible
        visible = visible if visible is None else visible.index_select(0, rows)
        return Memory(self.states.index_select(0, rows), TokenMask(visible, None))


@dataclass
class DecoderCache:
    """What decoding position by position keeps; `length` positions have been seen."""

    layers: list[LayerCache]
    length: int = 0

    def select(self, rows: Tensor) -> None:
        """Keep the hypotheses `rows`, (B',) int64, in that order."""
        for layer in self.layers:
            layer.target.select(rows)
            layer.memory.select(rows)


@dataclass(frozen=True)
class Output:
    """What a forward pass gives: states to project, and how tokens were routed."""

    states: Tensor  # (B, S, D) of the decoder, normalised
    routings: tuple[Routing, ...] = field(default_factory=tuple)  # order of `moe_layer_names`


class Transformer(nn.Module):
    """Pre-norm encoder-decoder with one embedding for source, target and output.

    Args:
        vocab_size: V.
        padding: id that stands where no token is.
        seed: the first weights depend on it and on the parameter's name only; None leaves them
            empty, to be loaded.
    """

    positions: Tensor

    def __init__(
        self, config: TransformerConfig, vocab_size: int, padding: int, seed: int | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.padding = padding
        self.embedding = nn.Embedding(vocab_size, config.embed_dim)
        names = {name: n for n, name in enumerate(config.moe_layer_names)}
        self.encoder = nn.ModuleList(
            EncoderLayer(config, names.get(f"encoder.{n}")) for n in range(config.encoder_layers)
        )
        self.encoder_norm = nn.LayerNorm(config.embed_dim)
        self.decoder = nn.ModuleList(
            DecoderLayer(config, names.get(f"decoder.{n}")) for n in range(config.decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(config.embed_dim)
        table = sinusoidal_positions(config.max_positions, config.embed_dim)
        self.register_buffer("positions", table, persistent=False)
        if seed is not None:
            initialise(self, seed)

    def forward(self, source: Tensor, target: Tensor, seed: int | None = None) -> Output:
        """Decoder states for each position of `target`, which sees what stands before it.

        Args:
            source: (B, S) int64, padded on either side.
            target: (B, S') int64, padded on the right; position s is to predict token s + 1.
            seed: key of the routers' random numbers in training: (seed, update, data rank).
        """
        memory = self.encode(source, seed)
        output = self.decode(target, memory, seed)
        return Output(output.states, memory.routings + output.routings)

    def encode(self, source: Tensor, seed: int | None = None) -> Memory:
        """Encode `source`, (B, S) int64."""
        mask = TokenMask.of(source, self.padding)
        x = self._embed(source, self._source_positions(source))
        routings = []
        for layer in self.encoder:
            x, routing = layer(x, mask, seed)
            routings.append(routing)
        states = self.encoder_norm(x)
        return Memory(states, mask, tuple(r for r in routings if r is not None))

    def decode(
        self,
        target: Tensor,
        memory: Memory,
        seed: int | None = None,
        cache: DecoderCache | None = None,
    ) -> Output:
        """Decode `target`, (B, S') int64; with a cache, the positions that it has not seen yet."""
        start = cache.length if cache else 0
        mask = TokenMask.of(target, self.padding) if cache is None else TokenMask(None, None)
        x = self._embed(target, self.positions[start : start + target.shape[1]])
        routings = []
        for n, layer in enumerate(self.decoder):
            layer_cache = cache.layers[n] if cache else None
            x, routing = layer(x, mask, memory.states, memory.mask, seed, layer_cache)
            routings.append(routing)
        if cache:
            cache.length += target.shape[1]
        return Output(self.decoder_norm(x), tuple(r for r in routings if r is not None))

    def new_cache(self) -> DecoderCache:
        """An empty cache for `decode`."""
        return DecoderCache([LayerCache() for _ in self.decoder])

    def project(self, states: Tensor) -> Tensor:
        """Logits (..., V) of decoder states (..., D)."""
        return F.linear(states, self.embedding.weight)

    def _embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        x = self.embedding(ids) * math.sqrt(self.config.embed_dim) + positions
        return F.dropout(x, self.config.dropout, self.training)

    def _source_positions(self, source: Tensor) -> Tensor:
        """(S, D) without padding, else (B, S, D): the first real token has position 0."""
        if source.shape[1] > self.config.max_positions:
            length, limit = source.shape[1], self.config.max_positions
            raise ValueError(f"source must have at most {limit} tokens, but has {length}.")
        real = source != self.padding
        if bool(real[:, 0].all()):  # padded on the right or not at all
            return self.positions[: source.shape[1]]
        return self.positions[(real.cumsum(1) - 1).clamp(min=0)]


def sinusoidal_positions(num_positions: int, dim: int) -> Tensor:
    """(num_positions, dim) float32: sines in the first half, cosines in the second."""
    half = dim // 2
    scale = torch.exp(torch.arange(half) * (-math.log(10000.0) / max(half - 1, 1)))
    angles = torch.arange(num_positions).unsqueeze(1) * scale  # (num_positions, half)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
