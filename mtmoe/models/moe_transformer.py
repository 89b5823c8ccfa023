"""The network as fairseq's model `moe_transformer`, with named sizes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.models import (
    BaseFairseqModel,
    FairseqEncoder,
    FairseqIncrementalDecoder,
    register_model,
)
from torch import Tensor

from mtmoe.checkpoint.fairseq_file import MODEL_NAME, SHARDS
from mtmoe.checkpoint.gathered import gather_weights, load_weights
from mtmoe.checkpoint.sharded import open_shards, read_weights
from mtmoe.config import NAMED_SIZES, TransformerConfig
from mtmoe.data.batching import lead_ids, with_lead
from mtmoe.data.vocabulary import PAD
from mtmoe.errors import CheckpointError
from mtmoe.fairseq_view import core_config, fairseq_view, one_sentence
from mtmoe.modules.transformer import Memory, Transformer
from mtmoe.ops.routing import RouterKey, update_choice_bias


class MoeTransformer(BaseFairseqModel):
    """Wraps `mtmoe.modules.transformer.Transformer`, which holds all parameters.

    `lead` are ids that the decoder reads before what fairseq hands it (`decoder_start`); fairseq
    does not see them. `encoder` and `decoder` are the faces that its generator expects; they own
    nothing. The vocabulary's checksum stands among the weights: at resume, fairseq shows a task no
    checkpoint.
    """

    vocabulary_digest: Tensor

    def __init__(
        self, transformer: Transformer, vocabulary_digest: Tensor, lead: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.transformer, self.lead = transformer, lead
        self.register_buffer("vocabulary_digest", vocabulary_digest)
        self.router_key: RouterKey | None = None
        self.shards_in: Path | None = None  # the save-dir where checkpoints are sharded
        self.starts_from: Path | None = None  # the checkpoint that fairseq will load
        self._saved: dict[str, Any] | None = None

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> MoeTransformer:
        """Make the model with first weights from the task's seed."""
        config = core_config(TransformerConfig, cfg)
        vocabulary = task.vocabulary
        num_languages = len(vocabulary.languages)
        sizes = (config, len(vocabulary.symbols), PAD)
        if task.mesh.devices is None:
            transformer = Transformer(*sizes, task.seed, num_languages=num_languages)
        else:
            with torch.device("meta"):
                transformer = Transformer(*sizes, num_languages=num_languages, mesh=task.mesh)
            device = torch.device(task.mesh.devices.device_type)
            transformer.materialise(device, task.seed, task.config.mesh.zero)
        digest = hashlib.sha256("\n".join(vocabulary.symbols).encode()).digest()
        checksum = torch.frombuffer(bytearray(digest), dtype=torch.uint8)
        return cls(transformer, checksum, lead_ids(task.config.decoder_start))

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Load weights of the same vocabulary, or end the program with one sentence."""
        with one_sentence():
            found = state_dict.get("vocabulary_digest", self.vocabulary_digest)
            if not torch.equal(found.cpu(), self.vocabulary_digest.cpu()):
                raise CheckpointError(
                    "the checkpoint must have the vocabulary of the data folder, but has another "
                    "one. Give the folder that it was trained on, or to train anew another "
                    "--save-dir."
                )
        if SHARDS in state_dict:
            with one_sentence():
                return self._load_shards(state_dict)
        if not self.is_sharded:
            return super().load_state_dict(state_dict, *args, **kwargs)
        return load_weights(self, state_dict)

    def _load_shards(self, stub: Any) -> None:
        """Read this rank's part of each weight; no other rank takes part."""
        folder = open_shards(self.starts_from or "", {"model": stub})
        assert folder is not None, "the checkpoint is sharded"
        read_weights(self, folder)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move it, as fairseq does to a GPU, unless ZeRO keeps parameters in host memory."""
        if self.transformer.mesh.has_host_parameters:
            return self
        return super().to(*args, **kwargs)

    @property
    def is_sharded(self) -> bool:
        """Whether several ranks hold the network."""
        return self.transformer.mesh.devices is not None

    def gather(self) -> None:
        """Bring the whole network to rank 0 for the next `state_dict`; every rank must call it."""
        self._saved = None  # `state_dict` is to give what this rank holds
        self._saved = gather_weights(self)

    def stand_in(self, stub: dict[str, Any] | None) -> None:
        """Give `stub` for the next `state_dict`, in place of weights that lie in a folder."""
        self._saved = stub

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """What `gather` or `stand_in` brought, once; else what this rank holds."""
        if self._saved is None:
            return super().state_dict(*args, **kwargs)
        saved, self._saved = self._saved, None
        return saved

    def set_router_key(self, key: RouterKey) -> None:
        """The key of the routers' random numbers in the next forward."""
        self.router_key = key

    def balance_choices(self, tokens_by_layer: dict[str, Tensor]) -> None:
        """Move the biases with which experts are chosen, after an update.

        Args:
            tokens_by_layer: (E,) choices of each expert over the whole update, e.g. "encoder.1".
        """
        rate = self.transformer.config.router.bias_update_rate
        for name, tokens in tokens_by_layer.items():
            router = self.transformer.get_submodule(f"{name}.feed_forward.ffn.router")
            if isinstance(router.choice_bias, Tensor):
                update_choice_bias(router.choice_bias, tokens, rate)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor,
        prev_output_tokens: Tensor,
        features_only: bool = False,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits (B, S', V), or states (B, S', D), and {"routings": of the MoE layers in order}."""
        key = self.router_key if self.training else None
        output = self.transformer(src_tokens, with_lead(self.lead, prev_output_tokens), key)
        states = output.states[:, len(self.lead) :]
        result = states if features_only else self.transformer.project(states)
        return result, {"routings": output.routings}

    def get_normalized_probs(self, net_output: Any, log_probs: bool, sample: Any = None) -> Tensor:
        """(Log-)probabilities of `forward`'s logits, float32."""
        normalise = F.log_softmax if log_probs else F.softmax
        return normalise(net_output[0].float(), dim=-1)

    def max_positions(self) -> tuple[int, int]:
        """Longest source, tags included, and longest target."""
        limit = self.transformer.config.max_positions
        return limit, limit - len(self.lead)

    def max_decoder_positions(self) -> int:
        """Longest target."""
        return self.max_positions()[1]

    @property
    def encoder(self) -> _Encoder:
        """What fairseq's generator calls once a sentence."""
        return _Encoder(self.transformer)

    @property
    def decoder(self) -> _Decoder:
        """What fairseq's generator calls once a position."""
        return _Decoder(self.transformer, self.lead)


class _Encoder(FairseqEncoder):
    def __init__(self, transformer: Transformer) -> None:
        super().__init__(dictionary=None)
        self.get_transformer = lambda: transformer  # not a sub-module: owned by the model

    def forward(self, src_tokens: Tensor, src_lengths: Tensor | None = None, **_: Any) -> Memory:
        return self.get_transformer().encode(src_tokens)

    def reorder_encoder_out(self, encoder_out: Memory, new_order: Tensor) -> Memory:
        return encoder_out.select(new_order)

    def max_positions(self) -> int:
        return self.get_transformer().config.max_positions


class _Decoder(FairseqIncrementalDecoder):
    def __init__(self, transformer: Transformer, lead: tuple[int, ...]) -> None:
        super().__init__(dictionary=None)
        self.get_transformer = lambda: transformer
        self.lead = lead

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: Memory,
        incremental_state: dict[str, Any] | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Logits (B, S', V) of the positions that the state has not seen yet."""
        transformer, read = self.get_transformer(), with_lead(self.lead, prev_output_tokens)
        if incremental_state is None:
            states = transformer.decode(read, encoder_out).states
        else:
            cache = incremental_state.setdefault("mtmoe", transformer.new_cache())
            states = transformer.decode(read[:, cache.length :], encoder_out, cache=cache).states
        num_more = max(states.shape[1] - prev_output_tokens.shape[1], 0)
        return transformer.project(states[:, num_more:]), None

    def reorder_incremental_state(
        self, incremental_state: dict[str, Any], new_order: Tensor
    ) -> None:
        if "mtmoe" in incremental_state:
            incremental_state["mtmoe"].select(new_order)

    def max_positions(self) -> int:
        return self.get_transformer().config.max_positions - len(self.lead)


def _register(suffix: str, sizes: dict[str, Any]) -> None:
    """One model class a size, with its own defaults: equal on the command line and in Hydra."""
    name = MODEL_NAME + suffix
    view = fairseq_view(TransformerConfig, f"View{suffix}", defaults=sizes)
    register_model(name, dataclass=view)(type(name, (MoeTransformer,), {}))


for _suffix, _sizes in NAMED_SIZES.items():
    _register(_suffix, _sizes)
