"""The network as fairseq's model `moe_transformer`, with named sizes."""

from __future__ import annotations

import hashlib
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

from mtmoe.checkpoint.fairseq_file import MODEL_NAME
from mtmoe.checkpoint.gathered import gather_weights, load_weights
from mtmoe.config import TransformerConfig
from mtmoe.data.vocabulary import PAD
from mtmoe.errors import CheckpointError
from mtmoe.fairseq_view import core_config, fairseq_view, one_sentence
from mtmoe.modules.transformer import Memory, Transformer
from mtmoe.ops.routing import RouterKey, update_choice_bias

# Sizes of the literature, and one for two CPU cores; `moe_transformer` has the core's defaults.
SIZES: dict[str, dict[str, Any]] = {
    "": {},
    "_tiny": {
        "encoder_layers": 2, "decoder_layers": 2, "embed_dim": 256, "ffn_dim": 256,
        "shared_ffn_dim": 256, "attention_heads": 8, "moe_every": 1, "dropout": 0.0,
    },
    "_big": {"embed_dim": 1024, "ffn_dim": 4096, "attention_heads": 16, "dropout": 0.3},
    "_zcode_m3": {  # Kim et al. 2021, arXiv:2109.10465: 10B with 64 experts
        "encoder_layers": 24, "decoder_layers": 12, "embed_dim": 1024, "ffn_dim": 4096,
        "attention_heads": 16, "num_experts": 64, "top_k": 1, "capacity_factor": 1.0,
    },
    "_nllb_54b": {  # NLLB-200 MoE
        "encoder_layers": 24, "decoder_layers": 24, "embed_dim": 2048, "ffn_dim": 8192,
        "attention_heads": 16, "moe_every": 4, "num_experts": 128, "top_k": 2,
    },
}  # fmt: skip


class MoeTransformer(BaseFairseqModel):
    """Wraps `mtmoe.modules.transformer.Transformer`, which holds all parameters.

    `encoder` and `decoder` are the faces that fairseq's generator expects; they own nothing. The
    vocabulary's checksum stands among the weights: at resume, fairseq shows a task no checkpoint.
    """

    vocabulary_digest: Tensor

    def __init__(self, transformer: Transformer, vocabulary_digest: Tensor) -> None:
        super().__init__()
        self.transformer = transformer
        self.register_buffer("vocabulary_digest", vocabulary_digest)
        self.router_key: RouterKey | None = None
        self._whole: dict[str, Tensor] | None = None

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
        return cls(transformer, torch.frombuffer(bytearray(digest), dtype=torch.uint8))

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Load weights of the same vocabulary, or end the program with one sentence."""
        with one_sentence():
            found = state_dict.get("vocabulary_digest", self.vocabulary_digest)
            if not torch.equal(found.cpu(), self.vocabulary_digest.cpu()):
                raise CheckpointError(
                    "the checkpoint must have the vocabulary of the data folder, but has another "
                    "one. Give the folder that it was trained on, or another --save-dir."
                )
        if not self.is_sharded:
            return super().load_state_dict(state_dict, *args, **kwargs)
        return load_weights(self, state_dict)

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
        self._whole = None  # `state_dict` is to give what this rank holds
        self._whole = gather_weights(self)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The whole network that `gather` brought, once; else what this rank holds."""
        if self._whole is None:
            return super().state_dict(*args, **kwargs)
        whole, self._whole = self._whole, None
        return whole

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
        output = self.transformer(src_tokens, prev_output_tokens, key)
        states = output.states
        result = states if features_only else self.transformer.project(states)
        return result, {"routings": output.routings}

    def get_normalized_probs(self, net_output: Any, log_probs: bool, sample: Any = None) -> Tensor:
        """(Log-)probabilities of `forward`'s logits, float32."""
        normalise = F.log_softmax if log_probs else F.softmax
        return normalise(net_output[0].float(), dim=-1)

    def max_positions(self) -> tuple[int, int]:
        """Longest source, tags included, and longest target."""
        limit = self.transformer.config.max_positions
        return limit, limit

    def max_decoder_positions(self) -> int:
        """Longest target."""
        return self.transformer.config.max_positions

    @property
    def encoder(self) -> _Encoder:
        """What fairseq's generator calls once a sentence."""
        return _Encoder(self.transformer)

    @property
    def decoder(self) -> _Decoder:
        """What fairseq's generator calls once a position."""
        return _Decoder(self.transformer)


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
    def __init__(self, transformer: Transformer) -> None:
        super().__init__(dictionary=None)
        self.get_transformer = lambda: transformer

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: Memory,
        incremental_state: dict[str, Any] | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Logits (B, S', V) of the positions that the state has not seen yet."""
        transformer = self.get_transformer()
        if incremental_state is None:
            output = transformer.decode(prev_output_tokens, encoder_out)
        else:
            cache = incremental_state.setdefault("mtmoe", transformer.new_cache())
            unseen = prev_output_tokens[:, cache.length :]
            output = transformer.decode(unseen, encoder_out, cache=cache)
        return transformer.project(output.states), None

    def reorder_incremental_state(
        self, incremental_state: dict[str, Any], new_order: Tensor
    ) -> None:
        if "mtmoe" in incremental_state:
            incremental_state["mtmoe"].select(new_order)

    def max_positions(self) -> int:
        return self.get_transformer().config.max_positions


def _register(suffix: str, sizes: dict[str, Any]) -> None:
    """One model class a size, with its own defaults: equal on the command line and in Hydra."""
    name = MODEL_NAME + suffix
    view = fairseq_view(TransformerConfig, f"View{suffix}", defaults=sizes)
    register_model(name, dataclass=view)(type(name, (MoeTransformer,), {}))


for _suffix, _sizes in SIZES.items():
    _register(_suffix, _sizes)
