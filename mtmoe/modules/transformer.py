"""The one Transformer: encoder and decoder with MoE on every n-th layer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmoe.config import CheckpointActivations, ChooseBy, TransformerConfig, Zero
from mtmoe.errors import ConfigError
from mtmoe.modules.attention import TargetCache
from mtmoe.modules.embedding import VocabularyEmbedding
from mtmoe.modules.experts import Experts
from mtmoe.modules.initialise import initialise
from mtmoe.modules.layers import DecoderLayer, EncoderLayer, LayerCache, LayerKind
from mtmoe.modules.router import Routing
from mtmoe.modules.tokens import Tokens, pad_in_inference, read_languages
from mtmoe.ops.buffers import BufferPool
from mtmoe.ops.routing import RouterKey
from mtmoe.parallel.mesh import ONE_PROCESS, Mesh
from mtmoe.parallel.plan import allocate, parallelize
from mtmoe.parallel.recompute import recompute


@dataclass(frozen=True)
class Memory:
    """What the decoder reads of the source."""

    states: Tensor  # (B, S, D)
    tokens: Tokens
    routings: tuple[Routing, ...] = ()  # of the encoder's MoE layers, in order

    def select(self, rows: Tensor) -> Memory:
        """The sentences `rows`, (B',) int64, in that order; without routings."""
        return Memory(self.states.index_select(0, rows), self.tokens.select(rows))


@dataclass
class DecoderCache:
    """What decoding position by position keeps; `length` positions have been seen.

    With a width of K > 1, K hypotheses of a sentence share K slots a position, and one that goes on
    from another only notes which slots it has to read: nothing is copied. With a width of 1, each
    hypothesis has a row of its own.
    """

    layers: list[LayerCache]
    width: int = 1
    length: int = 0
    slots: Tensor | None = None  # (B, K, S) int64: the slot of each position; width above 1

    def select(self, rows: Tensor) -> None:
        """Keep the hypotheses `rows`, (B',) int64, in that order; for a width of 1."""
        for layer in self.layers:
            layer.target.select(rows)
            layer.memory.select(rows)

    def follow(self, parent: Tensor) -> None:
        """Let hypothesis k of each sentence go on from its `parent[:, k]`, (B, K) int64."""
        if self.slots is not None:
            index = parent.unsqueeze(2).expand(-1, -1, self.slots.shape[2])
            self.slots = self.slots.gather(1, index)
            return
        before = self.layers[0].target.num_rows // parent.shape[0]
        first = torch.arange(parent.shape[0], device=parent.device) * before
        for layer in self.layers:
            layer.target.select((first.unsqueeze(1) + parent).flatten())

    def select_sentences(self, rows: Tensor) -> None:
        """Keep the sentences `rows`, (B',) int64, in that order."""
        target, memory = self.layers[0].target, self.layers[0].memory
        assert memory.key is not None, "nothing has been decoded"
        per_sentence = target.num_rows // memory.key.shape[0]
        place = torch.arange(per_sentence, device=rows.device)
        target_rows = (rows.unsqueeze(1) * per_sentence + place).flatten()
        for layer in self.layers:
            layer.target.select(target_rows)
            layer.memory.select(rows)
        if self.slots is not None:
            self.slots = self.slots.index_select(0, rows)

    def advance(self, target: Tensor, memory: Memory) -> None:
        """Make room in `slots` for `target`, (B * K, S'), the next positions."""
        num_rows, num_positions = target.shape
        self.length += num_positions
        if self.width == 1:
            return
        states = memory.states
        B, slot = states.shape[0], torch.arange(self.width, device=states.device)
        own = slot[: num_rows // B].view(1, -1, 1).expand(B, -1, num_positions)
        self.slots = own if self.slots is None else torch.cat([self.slots, own], 2)
        is_read = (self.slots.unsqueeze(3) == slot).flatten(2).unsqueeze(1)  # (B, 1, K, S * width)
        hidden = states.new_zeros(is_read.shape).masked_fill_(~is_read, float("-inf"))
        for layer in self.layers:
            layer.visible = hidden


@dataclass(frozen=True)
class Output:
    """What a forward pass gives: states to project, and how tokens were routed."""

    states: Tensor  # (B, S, D) of the decoder, normalised
    routings: tuple[Routing, ...] = field(default_factory=tuple)  # order of `moe_layer_names`

    def __getitem__(self, index: int) -> Tensor:
        """Number 0: the states; see `Routing`."""
        return (self.states,)[index]


class Transformer(nn.Module):
    """Pre-norm encoder-decoder with one embedding for source, target and output.

    Args:
        vocab_size: V.
        padding: id that stands where no token is.
        num_languages: how many of the last symbols are language tags; for routers that read them.
        seed: the first weights depend on it and on the parameter's name only; None leaves them
            empty, to be loaded.
        mesh: the ranks that share the network out; its parameters are sharded by
            `mtmoe.parallel.plan.parallelize`, which needs them on the meta device.
    """

    positions: Tensor

    def __init__(
        self,
        config: TransformerConfig,
        vocab_size: int,
        padding: int,
        seed: int | None = None,
        num_languages: int = 0,
        mesh: Mesh = ONE_PROCESS,
    ) -> None:
        super().__init__()
        if config.router.reads_languages and config.moe_layer_names and num_languages == 0:
            raise ConfigError(
                "router_input must be token for a vocabulary without language tags, but is "
                f"{config.router.router_input}."
            )
        self.config, self.mesh = config, mesh
        self.padding = padding
        self.num_languages = num_languages
        self.embedding = VocabularyEmbedding(vocab_size, config.embed_dim, mesh.tensor)
        self.encoder = nn.ModuleList(
            EncoderLayer(config, self._kind("encoder", n)) for n in range(config.encoder_layers)
        )
        self.encoder_norm = nn.LayerNorm(config.embed_dim)
        self.decoder = nn.ModuleList(
            DecoderLayer(config, self._kind("decoder", n)) for n in range(config.decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(config.embed_dim)
        if config.checkpoint_activations is not CheckpointActivations.none:
            self._keep_no_buffers()
        table = self.position_table()
        self.register_buffer("positions", table, persistent=False)
        if seed is not None:
            initialise(self, seed)

    def position_table(self) -> Tensor:
        """(max_positions, D) float32: what is added to the embeddings."""
        config = self.config
        first, last = config.first_position, config.first_position + config.max_positions
        return sinusoidal_positions(last, config.embed_dim)[first:]

    def materialise(self, device: torch.device, seed: int, zero: Zero) -> None:
        """Shard a network that was made on the meta device, and draw this rank's part of it.

        Every rank of the mesh must call it; the first weights equal those of one process.
        """
        parallelize(self, [*self.encoder, *self.decoder], self.mesh, zero)
        allocate(self, device, self.mesh)
        config = self.config
        self.positions.copy_(self.position_table())
        for name in config.moe_layer_names:
            bias = self.get_submodule(f"{name}.feed_forward.ffn.router").choice_bias
            if isinstance(bias, Tensor):
                bias.zero_()
        initialise(self, seed)

    def _kind(self, side: str, number: int) -> LayerKind:
        name, names = f"{side}.{number}", self.config.moe_layer_names
        choose_by: ChooseBy = getattr(self.config, f"{side}_routing")
        index = names.index(name) if name in names else None
        return LayerKind(index, choose_by, self.num_languages, self.mesh)

    def _keep_no_buffers(self) -> None:
        """What is computed again in the backward pass must not be held by each layer meanwhile."""
        for module in self.modules():
            if isinstance(module, Experts):
                module.pool = BufferPool(keeps=False)

    def forward(self, source: Tensor, target: Tensor, key: RouterKey | None = None) -> Output:
        """Decoder states for each position of `target`, which sees what stands before it.

        Args:
            source: (B, S) int64, padded on either side.
            target: (B, S') int64, padded on the right; position s is to predict token s + 1.
            key: of the routers' random numbers; needed in training.
        """
        memory = self.encode(source, key)
        output = self.decode(target, memory, key)
        return Output(output.states, memory.routings + output.routings)

    def encode(self, source: Tensor, key: RouterKey | None = None) -> Memory:
        """Encode `source`, (B, S) int64."""
        x = self._embed(source, self._source_positions(source))
        padded = pad_in_inference(source, self.padding)
        tokens = Tokens.of(padded, self.padding, self._languages(source))
        x = F.pad(x, (0, 0, 0, padded.shape[1] - source.shape[1]))
        routings = []
        for layer in self.encoder:
            x, routing = self._run(layer, x, tokens, key)
            routings.append(routing)
        states = self.encoder_norm(x)
        return Memory(states, tokens, tuple(r for r in routings if r is not None))

    def decode(
        self,
        target: Tensor,
        memory: Memory,
        key: RouterKey | None = None,
        cache: DecoderCache | None = None,
    ) -> Output:
        """Decode `target`, (B, S') int64; with a cache, the positions that it has not seen yet."""
        start = cache.length if cache else 0
        if cache:
            cache.advance(target, memory)
        tokens = self._target_tokens(target, memory, is_whole=cache is None)
        x = self._embed(target, self.positions[start : start + target.shape[1]])
        routings = []
        for n, layer in enumerate(self.decoder):
            layer_cache = cache.layers[n] if cache else None
            args = (x, tokens, memory.states, memory.tokens, key, layer_cache)
            x, routing = self._run(layer, *args)
            routings.append(routing)
        return Output(self.decoder_norm(x), tuple(r for r in routings if r is not None))

    def _run(self, layer: nn.Module, *args: Any) -> tuple[Tensor, Routing | None]:
        """A layer's output; in training, as `checkpoint_activations` has it."""
        mode = self.config.checkpoint_activations if self.training else CheckpointActivations.none
        out: tuple[Tensor, Routing | None] = recompute(mode, layer, *args)
        return out

    def _languages(self, source: Tensor) -> Tensor | None:
        if not self.config.router.reads_languages:
            return None
        vocab_size = self.embedding.num_embeddings
        return read_languages(source, self.padding, self.num_languages, vocab_size)

    def _target_tokens(self, target: Tensor, memory: Memory, is_whole: bool) -> Tokens:
        """A row of the memory may serve several rows of `target`: hypotheses, side by side."""
        languages = memory.tokens.languages
        if languages is not None:
            rows_per_sentence = target.shape[0] // max(languages.shape[0], 1)
            languages = languages.repeat_interleave(rows_per_sentence, 0)
        if is_whole:
            return Tokens.of(target, self.padding, languages)
        return Tokens((target.shape[0], target.shape[1]), languages=languages)

    def new_cache(self, width: int = 1) -> DecoderCache:
        """An empty cache for `decode`, with `width` slots for the hypotheses of a sentence."""
        return DecoderCache([LayerCache(TargetCache(width)) for _ in self.decoder], width)

    def project(self, states: Tensor) -> Tensor:
        """Logits of decoder states (..., D): see `VocabularyEmbedding.project`."""
        return self.embedding.project(states)

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
