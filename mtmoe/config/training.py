"""The settings of ranks, task, loss, schedule and optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field

from mtmoe.config.choices import (
    AdamKind,
    AllToAll,
    Autocast,
    BatchMix,
    CheckpointFormat,
    DecoderStart,
    EncoderTags,
    StateLocation,
    TaskTokens,
    Zero,
)
from mtmoe.config.model import TransformerConfig
from mtmoe.config.settings import require, setting
from mtmoe.errors import ConfigError


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
        is_length = self.span_length == 0 or 1 <= self.span_length <= 1e6
        require(self, "span_length", is_length, "0 (a mask for each token) or from 1 to 1e6")
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
        require(self, "max_share", 0 < self.max_share <= 1, "above 0 and at most 1")
        bounds = 0 <= self.min_share <= self.max_share
        require(self, "min_share", bounds, f"at least 0 and at most max_share ({self.max_share})")
        require(self, "loss_power", 0 <= self.loss_power <= 20, "between 0 and 20")
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
