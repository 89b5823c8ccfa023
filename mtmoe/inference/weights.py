"""A network whose weights are laid out once for translating on a CPU: faster, and never trained."""

from __future__ import annotations

import ctypes

import torch

from mtmoe.checkpoint.fairseq_file import Checkpoint
from mtmoe.config import ExpertType, WeightType
from mtmoe.errors import ConfigError
from mtmoe.inference.expert_memory import ExpertMemory
from mtmoe.inference.expert_share import ALL_EXPERTS, ExpertShare, keep_own_experts
from mtmoe.inference.fixed_network import (
    FixedEmbedding,
    FixedExperts,
    FixedFeedForward,
    fix_linear,
)
from mtmoe.modules.attention import Attention
from mtmoe.modules.experts import FeedForward
from mtmoe.modules.layers import DecoderLayer, EncoderLayer, FeedForwardBlock
from mtmoe.modules.moe_layer import MoELayer
from mtmoe.modules.transformer import Transformer
from mtmoe.ops.cached_attention import cache_dtype, can_attend
from mtmoe.ops.fixed_linear import FixedLinear

GIB = 1 << 30


def build_network(
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: str,
    expert_memory: float | None = None,
    share: ExpertShare = ALL_EXPERTS,
    expert_dtype: str | None = None,
) -> Transformer:
    """The network of `checkpoint` for translating on `device`.

    Args:
        expert_memory: GiB for experts, which are laid out when a token first comes to them; None:
            all are laid out at once.
        share: the experts of this rank; the weights of others stay in the file, if that is mapped.
        expert_dtype: int4, or None: experts are of `dtype`, too.

    Raises:
        ConfigError: the device has no such dtype, or no use for `expert_memory`; or there are no
            experts for `expert_dtype`.
    """
    kind, expert_kind = check_dtype(dtype, device), check_expert_dtype(expert_dtype, device)
    if device.type != "cpu":
        if expert_memory is not None:
            raise ConfigError(f"expert_memory must be left out on {device.type}, but is given.")
        if share is ALL_EXPERTS:
            return checkpoint.build_model().to(device, getattr(torch, kind))
        model = checkpoint.map_model()
        keep_own_experts(model, share)
        return model.to(device, getattr(torch, kind))
    memory: ExpertMemory[FixedFeedForward] | None = None
    if expert_memory is not None:
        memory = ExpertMemory(expert_memory * GIB)
    model = checkpoint.map_model()
    if expert_kind is not None and not any(isinstance(m, MoELayer) for m in model.modules()):
        raise ConfigError(
            "expert_dtype must be left out for a model without experts, but is "
            f"{expert_kind.value!r}. Leave it out."
        )
    fix_weights(model, kind, memory, share, expert_kind)
    _give_back_memory()
    return model


def _give_back_memory() -> None:
    """To the system, what laying out has left between the weights; where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def check_dtype(dtype: str, device: torch.device) -> WeightType:
    """The kind of weights that `dtype` names.

    Raises:
        ConfigError: none, or one that `device` has not.
    """
    known = [kind.value for kind in WeightType if device.type == "cpu" or kind != WeightType.int8]
    if dtype not in known:
        raise ConfigError(
            f"dtype must be one of {', '.join(known)} on {device.type}, but is {dtype!r}. "
            "Choose one."
        )
    return WeightType(dtype)


def check_expert_dtype(expert_dtype: str | None, device: torch.device) -> ExpertType | None:
    """The kind of experts' weights that `expert_dtype` names, if it does.

    Raises:
        ConfigError: there is no such kind, or `device` has it not.
    """
    if expert_dtype is None:
        return None
    if device.type != "cpu":
        raise ConfigError(
            f"expert_dtype must be left out on {device.type}, but is {expert_dtype!r}. "
            "Leave it out, or use the CPU."
        )
    known = [kind.value for kind in ExpertType]
    if expert_dtype not in known:
        raise ConfigError(
            f"expert_dtype must be {' or '.join(known)}, or left out, but is {expert_dtype!r}. "
            "Choose one."
        )
    return ExpertType(expert_dtype)


def fix_weights(
    model: Transformer,
    kind: WeightType,
    memory: ExpertMemory[FixedFeedForward] | None = None,
    share: ExpertShare = ALL_EXPERTS,
    expert_kind: ExpertType | None = None,
) -> None:
    """Replace the linear maps of `model`, on a CPU, by `FixedLinear`s, in place.

    Maps that read the same become one.

    Args:
        memory, share: see `FixedExperts`.
        expert_kind: of the experts, which become `Int4Linear`s; None: `kind`, as all others.
    """
    with torch.no_grad():
        for layer in model.encoder:
            assert isinstance(layer, EncoderLayer)
            _fix_attention(layer.attention, kind, reads_one=True)
            _fix_block(layer.feed_forward, kind, memory, share, expert_kind or kind)
        for layer in model.decoder:
            assert isinstance(layer, DecoderLayer)
            _fix_attention(layer.attention, kind, reads_one=True)
            _fix_attention(layer.cross_attention, kind, reads_one=False)
            _fix_block(layer.feed_forward, kind, memory, share, expert_kind or kind)
        model.embedding = FixedEmbedding(model.embedding, kind)  # type: ignore[assignment]
        for parameter in model.parameters():  # norms and routers: out of the file, as float32
            parameter.data = parameter.data.float().clone()
        model.requires_grad_(requires_grad=False)


def _fix_attention(attention: Attention, kind: WeightType, reads_one: bool) -> None:
    """Join query, key and value; or, where queries come from elsewhere, key and value."""
    joined = [attention.query] if reads_one else []
    joined += [attention.key, attention.value]
    weight, bias = (torch.cat([getattr(m, name) for m in joined]) for name in ("weight", "bias"))
    attention.joint = FixedLinear(weight, bias, kind)
    if not reads_one:
        attention.query = fix_linear(attention.query, kind)  # type: ignore[assignment]
    else:
        del attention.query
    del attention.key, attention.value
    if can_attend(attention.head_dim):
        attention.cache_dtype = cache_dtype(kind)
    attention.out = fix_linear(attention.out, kind)  # type: ignore[assignment]


def _fix_block(
    block: FeedForwardBlock,
    kind: WeightType,
    memory: ExpertMemory[FixedFeedForward] | None,
    share: ExpertShare,
    expert_kind: WeightType | ExpertType,
) -> None:
    layer = block.ffn
    if isinstance(layer, FeedForward):
        block.ffn = FixedFeedForward.of(layer, kind)  # type: ignore[assignment]
        return
    assert isinstance(layer, MoELayer)
    layer.router.fixed = FixedLinear(layer.router.weight, None, WeightType.float32)
    experts = FixedExperts(layer.experts, expert_kind, memory, share)
    layer.experts = experts  # type: ignore[assignment]
    if layer.shared_gate is not None:
        score = layer.shared_gate.score
        layer.shared_gate.fixed = fix_linear(score, WeightType.float32)
    if layer.shared is not None:
        layer.shared = FixedFeedForward.of(layer.shared, kind)  # type: ignore[assignment]
