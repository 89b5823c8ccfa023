"""The settings of the network."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from mtmoe.config.choices import (
    Activation,
    BackendChoice,
    CheckpointActivations,
    ChoiceWeight,
    ChooseBy,
    DropPolicy,
    RouterInput,
    RouterLanguage,
    SecondChoice,
    SharedMode,
)
from mtmoe.config.settings import require, setting
from mtmoe.errors import ConfigError

MOST_EXPERTS = 100_000  # of a layer
MOST_POSITIONS = 1_000_000  # their table is computed, so that no weights bound it


@dataclass(frozen=True)
class RouterConfig:
    """How the tokens of one MoE layer choose their experts; docs/routing.md explains each."""

    num_experts: int = setting(8, "experts of one MoE layer, over all ranks")
    top_k: int = setting(
        1, "experts that process each token; under expert choice, on average at capacity_factor 1"
    )
    choice_weight: ChoiceWeight = setting(
        ChoiceWeight.auto,
        "weight of an expert's output: its raw probability, or normalised over the token's "
        "choices; auto: raw for one choice and for expert choice, else normalised",
    )
    capacity_factor: float = setting(
        0.0,
        "slots per expert in training = factor * top_k * tokens / experts, rounded up; "
        "0: dropless, every choice has a slot (1 under expert choice)",
    )
    eval_capacity_factor: float = setting(
        0.0,
        "the same in evaluation; above 0, translations depend on what else is in the batch",
    )
    min_capacity: int = setting(1, "slots per expert at least")
    drop_policy: DropPolicy = setting(
        DropPolicy.random,
        "which tokens a full expert turns away: random ones (Random Token Selection), the last in "
        "order, or those of the lowest score (batch-prioritised routing)",
    )
    second_choice: SecondChoice = setting(
        SecondChoice.always,
        "in training, take the choices after the first one always, or sampled by their weight",
    )
    jitter: float = setting(
        0.01, "in training, multiply the router's input by uniform noise from 1-jitter to 1+jitter"
    )
    balance_loss_weight: float = setting(0.01, "weight of the load balance loss")
    z_loss_weight: float = setting(0.0, "weight of the router's z-loss")
    bias_update_rate: float = setting(
        0.0,
        "balance without a loss: after each update, raise or lower by this the bias with which an "
        "expert is chosen; 0: no bias",
    )
    router_input: RouterInput = setting(
        RouterInput.token,
        "what a router reads: the token, the token plus an embedding of the language, or the "
        "language alone, so that all tokens of a sentence go to the same experts",
    )
    router_language: RouterLanguage = setting(
        RouterLanguage.target, "which language the router reads: source, target, or both"
    )
    gating_dropout: float = setting(
        0.0, "in training, share of the updates in which an MoE layer skips its experts"
    )
    expert_output_masking: float = setting(
        0.0, "in training, share of the choices whose output is set to 0"
    )

    def __post_init__(self) -> None:
        is_met = 1 <= self.num_experts <= MOST_EXPERTS
        require(self, "num_experts", is_met, f"between 1 and {MOST_EXPERTS}")
        require(
            self,
            "top_k",
            1 <= self.top_k <= self.num_experts,
            f"between 1 and num_experts ({self.num_experts})",
        )
        for name in ("balance_loss_weight", "z_loss_weight", "bias_update_rate"):
            require(self, name, 0 <= getattr(self, name) < math.inf, "0 or above, and finite")
        for name in ("capacity_factor", "eval_capacity_factor"):
            is_met = 0 <= getattr(self, name) < math.inf
            require(self, name, is_met, "0 (dropless) or above, and finite")
        require(self, "min_capacity", self.min_capacity >= 1, "at least 1")
        for name in ("jitter", "gating_dropout", "expert_output_masking"):
            require(self, name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        is_sampled = self.second_choice is SecondChoice.sampled
        require(self, "second_choice", not (is_sampled and self.top_k == 1), "always with top_k 1")

    @property
    def reads_languages(self) -> bool:
        """Whether the routers have embeddings of languages."""
        return self.router_input is not RouterInput.token

    def with_experts(self, num_experts: int) -> RouterConfig:
        """The same routing among `num_experts`: a token has no more choices than there are.

        Of one expert, the weight is 1, raw or normalised.
        """
        top_k = min(self.top_k, num_experts)
        if top_k == self.top_k or top_k > 1:
            return dataclasses.replace(self, num_experts=num_experts, top_k=top_k)
        return dataclasses.replace(
            self, num_experts=1, top_k=1,
            choice_weight=ChoiceWeight.raw, second_choice=SecondChoice.always,
        )  # fmt: skip


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of the one network; see `mtmoe.modules.transformer`."""

    encoder_layers: int = setting(6, "layers of the encoder")
    decoder_layers: int = setting(6, "layers of the decoder")
    embed_dim: int = setting(512, "width of the model")
    ffn_dim: int = setting(2048, "width of a dense feed-forward network, and of each expert")
    activation: Activation = setting(
        Activation.relu, "function of feed-forward networks and experts; swiglu has a third matrix"
    )
    attention_heads: int = setting(8, "attention heads; embed_dim must be a multiple")
    dropout: float = setting(0.1, "dropout of embeddings and of each layer's output")
    attention_dropout: float = setting(0.0, "dropout of attention weights")
    activation_dropout: float = setting(
        0.0, "dropout after the activation of dense FFNs and experts"
    )
    moe_every: int = setting(2, "every n-th layer of encoder and decoder is an MoE layer; 0: none")
    shared_ffn_dim: int = setting(
        0, "width of a dense network beside the experts of an MoE layer, for every token; 0: none"
    )
    shared_mode: SharedMode = setting(
        SharedMode.add,
        "how that network and the experts are added: add (a shared expert), mixed by learned "
        "coefficients (residual MoE), or conditional on a learned gate (conditional MoE routing)",
    )
    gate_budget: float = setting(
        0.8, "share of tokens that the conditional gate may give to the experts"
    )
    gate_loss_weight: float = setting(0.1, "weight of the conditional gate's budget loss")
    gate_dropout: float = setting(
        0.0, "in training, share of tokens whose conditional gate is shut: no experts"
    )
    encoder_routing: ChooseBy = setting(
        ChooseBy.token,
        "encoder: each token chooses its experts, or each expert its tokens of a sentence",
    )
    decoder_routing: ChooseBy = setting(
        ChooseBy.token, "decoder: token; an expert cannot choose among tokens yet to come"
    )
    backend: BackendChoice = setting(
        BackendChoice.auto,
        "implementation of dispatch and experts: torch (the definition), cpu, triton, or auto",
    )
    checkpoint_activations: CheckpointActivations = setting(
        CheckpointActivations.none,
        "save memory in training: each layer keeps its input only and is computed again in the "
        "backward pass (full), or all but what it received from other ranks (keep_communication)",
    )
    max_positions: int = setting(1024, "longest sentence in tokens, tags and end included")
    experts_by_layer: str = setting(
        "",
        "experts of each MoE layer, those of the encoder first, e.g. 8,4,4,2; the largest must be "
        "num_experts; default: num_experts in every layer",
    )
    first_position: int = setting(
        0, "number of a sentence's first position; 2 in models of fairseq and Hugging Face"
    )
    router: RouterConfig = field(default_factory=RouterConfig)

    def __post_init__(self) -> None:
        for name in ("encoder_layers", "decoder_layers", "embed_dim", "ffn_dim", "attention_heads"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            require(self, name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        require(
            self,
            "embed_dim",
            self.embed_dim % (2 * self.attention_heads) == 0,
            f"a multiple of twice attention_heads (2 * {self.attention_heads})",
        )
        require(self, "moe_every", self.moe_every >= 0, "0 (dense) or above")
        require(self, "shared_ffn_dim", self.shared_ffn_dim >= 0, "0 (none) or above")
        is_met = 4 <= self.max_positions <= MOST_POSITIONS
        require(self, "max_positions", is_met, f"between 4 and {MOST_POSITIONS}")
        is_met = 0 <= self.first_position <= MOST_POSITIONS
        require(self, "first_position", is_met, f"between 0 and {MOST_POSITIONS}")
        for name in ("gate_budget", "gate_dropout"):
            require(self, name, 0 <= getattr(self, name) <= 1, "between 0 and 1")
        require(self, "gate_loss_weight", self.gate_loss_weight >= 0, "0 or above")
        self._check_combinations()
        self._check_experts_by_layer()

    def _check_combinations(self) -> None:
        needs_shared = self.shared_mode is not SharedMode.add
        require(
            self,
            "shared_mode",
            self.shared_ffn_dim > 0 or not needs_shared,
            "add, unless shared_ffn_dim is above 0",
        )
        require(
            self,
            "decoder_routing",
            self.decoder_routing is ChooseBy.token,
            "token (an expert that chooses among the tokens of a sentence sees those that are yet "
            "to be translated, so training would not match translation; use encoder_routing)",
        )
        is_own_backend = self.backend in (BackendChoice.cpu, BackendChoice.triton)
        require(
            self,
            "backend",
            not (is_own_backend and self.activation_dropout > 0),
            "auto or torch with activation_dropout above 0",
        )
        router = self.router
        token_chooses = ChooseBy.token in self.routings
        if router.choice_weight is ChoiceWeight.normalised and router.top_k == 1 and token_chooses:
            raise ConfigError(
                "choice_weight must be raw or auto with top_k 1, but is normalised: the weight "
                "would always be 1, and the router would not learn."
            )

    def _check_experts_by_layer(self) -> None:
        numbers, num_layers = self.experts_by_layer.split(","), len(self.moe_layer_names)
        is_list = all(number.strip().isdecimal() for number in numbers)
        require(
            self,
            "experts_by_layer",
            not self.experts_by_layer or (is_list and len(numbers) == num_layers),
            f"empty, or one number for each of the {num_layers} MoE layers, as 8,4",
        )
        highest = max(self.num_experts_by_layer, default=0)
        require(
            self,
            "experts_by_layer",
            not self.experts_by_layer
            or (highest == self.router.num_experts and min(self.num_experts_by_layer) >= 1),
            f"numbers from 1 to num_experts ({self.router.num_experts}), which the largest is",
        )

    @property
    def num_experts_by_layer(self) -> tuple[int, ...]:
        """The experts of each MoE layer, in the order of `moe_layer_names`."""
        if self.experts_by_layer:
            return tuple(int(number) for number in self.experts_by_layer.split(","))
        return (self.router.num_experts,) * len(self.moe_layer_names)

    def for_layer(self, moe_index: int) -> TransformerConfig:
        """The settings of MoE layer number `moe_index`, which has its own number of experts."""
        if not self.experts_by_layer:
            return self
        router = self.router.with_experts(self.num_experts_by_layer[moe_index])
        return dataclasses.replace(self, experts_by_layer="", router=router)

    @property
    def routings(self) -> set[ChooseBy]:
        """Who chooses in the MoE layers that there are."""
        sides = {name.split(".")[0] for name in self.moe_layer_names}
        return {getattr(self, f"{side}_routing") for side in sides}

    def is_moe(self, layer: int) -> bool:
        """Whether layer number `layer` (from 0) of the encoder or the decoder has experts."""
        return self.moe_every > 0 and (layer + 1) % self.moe_every == 0

    @property
    def moe_layer_names(self) -> tuple[str, ...]:
        """The MoE layers in the order in which a sentence meets them, e.g. ("encoder.1", ...)."""
        sides = (("encoder", self.encoder_layers), ("decoder", self.decoder_layers))
        return tuple(
            f"{side}.{n}" for side, layers in sides for n in range(layers) if self.is_moe(n)
        )


# Sizes of the literature, and one for two CPU cores; `moe_transformer` has the core's defaults.
NAMED_SIZES: dict[str, dict[str, Any]] = {
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
