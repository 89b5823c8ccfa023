"""The settings of the core: frozen dataclasses that check their own fields at birth.

Help is written here once; `mtmoe.fairseq_view` turns these classes into fairseq's command line and
Hydra groups.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, TypeVar

from mtmoe.errors import ConfigError

T = TypeVar("T")


def setting(default: T, help_text: str, alias: str | None = None) -> T:
    """A dataclass field with a default and the one line of help that all interfaces show.

    Args:
        alias: a second name on fairseq's command line, e.g. "-s".
    """
    return field(default=default, metadata={"help": help_text, "argparse_alias": alias})


class Choice(StrEnum):
    """A setting with named values; a member's name equals its value (OmegaConf reads names)."""


class DropPolicy(Choice):
    """Which tokens a full expert turns away."""

    order = "order"
    random = "random"
    score = "score"


class ChooseBy(Choice):
    """Who chooses: each token its experts, or each expert its tokens."""

    token = "token"
    expert = "expert"


class ChoiceWeight(Choice):
    """What the output of a chosen expert is multiplied by."""

    auto = "auto"
    raw = "raw"
    normalised = "normalised"


class SecondChoice(Choice):
    """Whether the choices after the first one are always taken."""

    always = "always"
    sampled = "sampled"


class RouterInput(Choice):
    """What a router reads of a token."""

    token = "token"
    token_and_language = "token_and_language"
    language = "language"


class RouterLanguage(Choice):
    """Which language a router reads."""

    source = "source"
    target = "target"
    both = "both"


class SharedMode(Choice):
    """How the dense network beside the experts and the experts are added up."""

    add = "add"
    mixed = "mixed"
    conditional = "conditional"


class Activation(Choice):
    """The non-linear function of feed-forward networks and experts."""

    relu = "relu"
    gelu = "gelu"
    swiglu = "swiglu"


class BackendChoice(Choice):
    """Which implementation of dispatch and experts runs."""

    auto = "auto"
    torch = "torch"
    cpu = "cpu"
    triton = "triton"


class CheckpointActivations(Choice):
    """What the layers compute again in the backward pass, to save memory."""

    none = "none"
    full = "full"
    keep_communication = "keep_communication"


class AdamKind(Choice):
    """Where Adam's weight decay acts."""

    adamw = "adamw"
    adam = "adam"


class StateLocation(Choice):
    """Where the optimizer's state lies."""

    device = "device"
    host = "host"


class EncoderTags(Choice):
    """Which language tags stand before the source sentence."""

    source = "source"
    target = "target"
    both = "both"


class Zero(Choice):
    """What the ranks that hold copies of a parameter shard among them (ZeRO's stages)."""

    none = "none"
    gradients = "gradients"
    parameters = "parameters"


class CheckpointFormat(Choice):
    """How ranks write a checkpoint."""

    gathered = "gathered"
    sharded = "sharded"


class AllToAll(Choice):
    """How tokens travel between the ranks that own experts."""

    flat = "flat"
    hierarchical = "hierarchical"


class TaskTokens(Choice):
    """Which tasks a token in the encoder names."""

    others = "others"
    none = "none"


class BatchMix(Choice):
    """What a training batch holds where sentences are sampled."""

    mixed = "mixed"
    single = "single"


class DecoderStart(Choice):
    """What the decoder reads before the translation."""

    tag = "tag"
    end_and_tag = "end_and_tag"


class Autocast(Choice):
    """Mixed precision of matrix products in training."""

    off = "off"
    bfloat16 = "bfloat16"
    auto = "auto"


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
        require(self, "num_experts", self.num_experts >= 1, "at least 1")
        require(
            self,
            "top_k",
            1 <= self.top_k <= self.num_experts,
            f"between 1 and num_experts ({self.num_experts})",
        )
        for name in ("balance_loss_weight", "z_loss_weight", "bias_update_rate"):
            require(self, name, getattr(self, name) >= 0, "0 or above")
        for name in ("capacity_factor", "eval_capacity_factor"):
            require(self, name, getattr(self, name) >= 0, "0 (dropless) or above")
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
        require(self, "max_positions", self.max_positions >= 4, "at least 4")
        require(self, "first_position", self.first_position >= 0, "0 or above")
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


@dataclass(frozen=True)
class MeshConfig:
    """How the ranks are laid out: data x expert x tensor."""

    expert_parallel_size: int = setting(1, "ranks that share the experts of a layer out")
    tensor_parallel_size: int = setting(1, "ranks that share each matrix out")
    zero: Zero = setting(
        Zero.none,
        "what the copies of a parameter shard among them: none; gradients and optimizer state "
        "(ZeRO-2); or parameters too (ZeRO-3, gathered layer by layer)",
    )
    deduplicate_tokens: bool = setting(
        False,
        "duplicate token dropping: the ranks of a tensor group send 1/tensor of the tokens each to "
        "the experts, not all of them the same",
    )
    shard_tokens: bool = setting(
        False,
        "the ranks of a tensor group route 1/tensor of the tokens each: sends as little as "
        "deduplicate_tokens, and keeps 1/tensor of what routing and dispatch keep",
    )
    whole_experts: bool = setting(
        False,
        "the ranks of a tensor group own different experts, whole, instead of slices of the same; "
        "needs deduplicate_tokens or shard_tokens",
    )
    all_to_all: AllToAll = setting(
        AllToAll.flat,
        "tokens travel to their experts in one step (flat), or within a node and then between "
        "nodes, in fewer and larger messages (hierarchical)",
    )
    parameter_location: StateLocation = setting(
        StateLocation.device,
        "where what ZeRO shards lies, gradients and optimizer state included: on the device, or in "
        "main memory (host), brought to the device layer by layer; needs zero",
    )
    node_size: int = setting(0, "ranks of a node, for all_to_all hierarchical; 0: as torchrun says")

    def __post_init__(self) -> None:
        for name in ("expert_parallel_size", "tensor_parallel_size"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "node_size", self.node_size >= 0, "0 or above")
        can_be_there = self.parameter_location is StateLocation.device or self.zero is not Zero.none
        require(self, "parameter_location", can_be_there, "device without zero")
        is_once = not (self.shard_tokens and self.deduplicate_tokens)
        require(self, "shard_tokens", is_once, "off with deduplicate_tokens, which it includes")
        is_shared_out = self.shard_tokens or self.deduplicate_tokens or not self.whole_experts
        rule = "off without deduplicate_tokens or shard_tokens: experts would get each token twice"
        require(self, "whole_experts", is_shared_out, rule)


@dataclass(frozen=True)
class NoiseConfig:
    """What denoising does to a sentence; see `mtmoe.data.noise`."""

    mask_ratio: str = setting(
        "0.3", "share of tokens that denoising masks: 0.3, or growing over updates: 0:0.1/9000:0.3"
    )
    span_length: float = setting(
        3.5, "mean (Poisson) of the spans that one mask stands for; 0: a mask for each token"
    )
    random_ratio: float = setting(0.1, "share of masks that are random tokens instead")
    deletion_ratio: float = setting(0.0, "share of tokens that denoising deletes")
    permutation: float = setting(0.0, "share of texts whose sentences denoising permutes")

    def __post_init__(self) -> None:
        is_length = self.span_length == 0 or self.span_length >= 1
        require(self, "span_length", is_length, "0 (a mask for each token) or at least 1")
        require(self, "deletion_ratio", 0 <= self.deletion_ratio < 1, "at least 0 and below 1")
        for name in ("random_ratio", "permutation"):
            require(self, name, 0 <= getattr(self, name) <= 1, "between 0 and 1")


@dataclass(frozen=True)
class SamplingConfig:
    """How tasks and directions share the sentences of training; docs/multitask.md explains each."""

    task_mix: str = setting(
        "translation",
        "tasks and their shares of the sentences, translation=7,denoising=2,title=1; a share may "
        "be a schedule over updates, denoising=0:1/9000:0.2",
    )
    direction_shares: str = setting(
        "", "explicit shares of a task's directions, en-de=0.2,denoising:fr=0.5, or schedules"
    )
    min_share: float = setting(0.0, "smallest share of a direction in its task")
    max_share: float = setting(1.0, "largest share of a direction in its task")
    join_updates: str = setting(
        "", "curriculum: directions that join at an update, de-en=2000,title:en-en=500"
    )
    loss_power: float = setting(
        0.0,
        "multiply the share of a direction by (its validation loss / their mean) ** power, anew "
        "each epoch; 0: no",
    )
    batch_mix: BatchMix = setting(
        BatchMix.mixed, "batches mix tasks and directions, or have a single one each"
    )
    epoch_updates: int = setting(
        0, "updates of an epoch where sentences are sampled; 0: 1000 if an option asks for sampling"
    )

    def __post_init__(self) -> None:
        bounds = 0 <= self.min_share <= self.max_share <= 1 and self.max_share > 0
        require(self, "min_share", bounds, f"at least 0 and at most max_share ({self.max_share})")
        require(self, "loss_power", self.loss_power >= 0, "0 or above")
        require(self, "epoch_updates", self.epoch_updates >= 0, "0 or above")

    @property
    def is_sampled(self) -> bool:
        """Whether training samples without end, instead of going over the text in epochs."""
        return self != SamplingConfig()


@dataclass(frozen=True)
class MultitaskConfig:
    """What the task `multitask_translation` reads, and how it mixes it."""

    data: str = setting("", "folder that data_prep.binarise wrote")
    source_lang: str = setting("", "only directions from this language", "-s")
    target_lang: str = setting("", "only directions to this language", "-t")
    directions: str = setting("", "directions to use, e.g. en-de,de-en; default: both of each pair")
    sampling_temperature: float = setting(
        1.0, "share of a direction in training ~ size ** (1 / temperature); 1: each sentence once"
    )
    encoder_tags: EncoderTags = setting(
        EncoderTags.both,
        "language tags before the source sentence; the target's starts the decoder",
    )
    decoder_start: DecoderStart = setting(
        DecoderStart.tag,
        "what the decoder reads before the translation: the target's tag, or </s> and the tag, as "
        "models that were taken over from other programs do",
    )
    task_tokens: TaskTokens = setting(
        TaskTokens.others,
        "tasks named by a token after the encoder's tags: all others than translation, or none",
    )
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)

    mesh: MeshConfig = field(default_factory=MeshConfig)
    checkpoint_format: CheckpointFormat = setting(
        CheckpointFormat.gathered,
        "a checkpoint is one ordinary .pt that rank 0 writes (gathered), or a small .pt and a "
        "folder that all ranks write in parallel (sharded); any layout resumes either",
    )
    collective_timeout: int = setting(
        600,
        "seconds that a rank waits in a collective for one that does not answer, before it ends "
        "the job; above the time that rank 0 takes to write a gathered checkpoint",
    )

    def __post_init__(self) -> None:
        require(self, "sampling_temperature", self.sampling_temperature >= 1, "at least 1")
        require(self, "collective_timeout", self.collective_timeout >= 1, "at least 1")


@dataclass(frozen=True)
class CriterionConfig:
    """The training objective."""

    label_smoothing: float = setting(0.0, "share of probability given to all other symbols")
    autocast: Autocast = setting(
        Autocast.off,
        "precision of matrix products: off (float32), bfloat16, or auto (bfloat16 where the "
        "machine has it in hardware)",
    )

    def __post_init__(self) -> None:
        require(self, "label_smoothing", 0 <= self.label_smoothing < 1, "at least 0 and below 1")


@dataclass(frozen=True)
class DeadlineConfig:
    """The learning rate schedule `linear_to_deadline`."""

    warmup_updates: int = setting(0, "raise the learning rate linearly over the first N updates")


@dataclass(frozen=True)
class AdamConfig:
    """The optimizer `fused_adam`, beside fairseq's own flags of `adam`."""

    adam_kind: AdamKind = setting(
        AdamKind.adamw,
        "weight decay: of the weights themselves (adamw), or added to the gradient (adam)",
    )
    tile_size: int = setting(
        1 << 24,
        "elements of float32 that a step may hold at once beside weights, gradients and state; "
        "what does not fit is updated tile by tile",
    )
    state_location: StateLocation = setting(
        StateLocation.device,
        "where the optimizer's state lies: beside the weights (device), or in main memory (host), "
        "streamed through the device tile by tile",
    )
    master_weights: bool = setting(
        False, "keep a float32 copy of half-precision weights in the state, and update that"
    )

    def __post_init__(self) -> None:
        require(self, "tile_size", self.tile_size >= 1000, "at least 1000")


def require(config: object, name: str, is_met: bool, rule: str) -> None:
    """Refuse the value of `config.name` unless `is_met`.

    Raises:
        ConfigError: names the setting, the rule and the value.
    """
    if not is_met:
        raise ConfigError(f"{name} must be {rule}, but is {getattr(config, name)}.")


def check_router_languages(config: TransformerConfig, tags: EncoderTags) -> None:
    """Refuse routers that read a language which the encoder's tags do not name.

    Raises:
        ConfigError: says which they do name.
    """
    wanted = config.router.router_language
    is_told = tags is EncoderTags.both or tags.value == wanted.value
    if config.router.reads_languages and config.moe_layer_names and not is_told:
        raise ConfigError(
            f"router_language must be {tags} with encoder_tags {tags}, but is {wanted}. "
            "Or set encoder_tags to both."
        )


def flat_fields(config_class: type) -> dict[str, dataclasses.Field[Any]]:
    """The leaf fields of a config class, those of nested configs included; names are unique."""
    found: dict[str, dataclasses.Field[Any]] = {}
    for item in dataclasses.fields(config_class):
        nested = nested_config(item)
        found.update(flat_fields(nested) if nested else {item.name: item})
    return found


def nested_config(item: dataclasses.Field[Any]) -> type | None:
    """The config class that `item` nests, or None for a leaf."""
    factory = item.default_factory
    return factory if isinstance(factory, type) and dataclasses.is_dataclass(factory) else None


def flatten_config(config: object) -> dict[str, Any]:
    """The flat values of a config as plain types; `build_config` is the inverse."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if nested_config(item):
            found.update(flatten_config(value))
        else:
            found[item.name] = value.value if isinstance(value, Enum) else value
    return found


def build_config(config_class: type[T], values: dict[str, Any]) -> T:
    """Make a config, nested ones included, out of flat `values`; missing ones keep their defaults.

    Values of other names are ignored, so that a whole fairseq namespace may be given. Enums may be
    given as members, names or plain strings.

    Raises:
        ConfigError: a value is refused.
    """
    arguments: dict[str, Any] = {}
    for item in dataclasses.fields(config_class):  # type: ignore[arg-type]
        nested = nested_config(item)
        if nested:
            arguments[item.name] = build_config(nested, values)
        elif values.get(item.name) is not None:
            arguments[item.name] = _convert(item, values[item.name])
    return config_class(**arguments)


def _convert(item: dataclasses.Field[Any], value: Any) -> Any:
    kind = type(item.default)
    try:
        if issubclass(kind, Enum):
            return kind(str(getattr(value, "value", value)))
        return kind(value) if kind in (int, float) else value
    except ValueError:
        allowed = (
            ", ".join(map(str, kind)) if issubclass(kind, Enum) else f"of type {kind.__name__}"
        )
        raise ConfigError(f"{item.name} must be {allowed}, but is {value}.") from None


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


class WeightType(Choice):
    """In what numbers a model translates: those of its weights and of the products with them."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"
