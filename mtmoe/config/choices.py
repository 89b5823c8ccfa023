"""Settings with named values."""

from __future__ import annotations

from enum import StrEnum


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


class WeightType(Choice):
    """In what numbers a model translates: those of its weights and of the products with them."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"


class ExpertType(Choice):
    """Numbers of the experts' weights alone, where they are not those of all weights."""

    int4 = "int4"
