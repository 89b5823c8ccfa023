from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from mtmoe.config import (
    Activation,
    ExpertType,
    RouterConfig,
    SharedMode,
    TransformerConfig,
    WeightType,
)
from mtmoe.data.batching import pad
from mtmoe.data.vocabulary import PAD
from mtmoe.errors import ConfigError
from mtmoe.inference.weights import ExpertMemory, check_dtype, check_expert_dtype, fix_weights
from mtmoe.modules.transformer import Transformer
from tests.inference.test_beam_search import sentences

KINDS = {
    "dense": {"moe_every": 0},
    "gelu": {"activation": Activation.gelu},
    "swiglu": {"activation": Activation.swiglu, "shared_ffn_dim": 16},
    "shared": {"shared_ffn_dim": 32, "router": RouterConfig(num_experts=4, top_k=1)},
    "mixed": {"shared_ffn_dim": 32, "shared_mode": SharedMode.mixed},
    "conditional": {"shared_ffn_dim": 32, "shared_mode": SharedMode.conditional},
}


def build(**settings: object) -> Transformer:
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "embed_dim": 32, "ffn_dim": 64}
    router = {"router": RouterConfig(num_experts=4, top_k=2)}
    config = TransformerConfig(**(sizes | router | {"attention_heads": 4} | settings))  # type: ignore[arg-type]
    return Transformer(config, 70, PAD, seed=2).eval()


@torch.inference_mode()
def logits(model: Transformer, width: int = 1) -> torch.Tensor:
    """(3, 5, 70): of five positions, one by one."""
    memory, cache = model.encode(pad(sentences()[:3])), model.new_cache(width)
    target = torch.randint(5, 24, (3, 5), generator=torch.Generator().manual_seed(2))
    steps = [model.decode(target[:, s : s + 1], memory, cache=cache).states for s in range(5)]
    return model.project(torch.cat(steps, 1))[..., :70]


@pytest.mark.parametrize("name", KINDS)
def test_a_network_with_fixed_weights_is_the_same_network(name: str) -> None:
    model = build(**KINDS[name])
    expected = logits(model)
    fix_weights(model, WeightType.float32)
    assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    assert_close(logits(model, width=3), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [WeightType.bfloat16, WeightType.int8])
@pytest.mark.parametrize("name", KINDS)
def test_rounded_weights_change_little(name: str, kind: WeightType) -> None:
    model = build(**KINDS[name])
    expected = logits(model)
    fix_weights(model, kind)
    difference = (logits(model) - expected).pow(2).mean().sqrt()
    assert 0 < difference < 0.15 * expected.pow(2).mean().sqrt()


@pytest.mark.parametrize("kind", list(WeightType))
@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"dense"}))
def test_experts_in_four_bits_change_little(name: str, kind: WeightType) -> None:
    model, whole = build(**KINDS[name]), build(**KINDS[name])
    fix_weights(whole, kind)
    fix_weights(model, kind, expert_kind=ExpertType.int4)
    expected = logits(whole)
    difference = (logits(model) - expected).pow(2).mean().sqrt()
    assert 0 < difference < 0.15 * expected.pow(2).mean().sqrt()


@pytest.mark.parametrize("num_bytes", [0, 10_000, 1e9])
def test_a_budget_counts_experts_in_four_bits_as_they_are(num_bytes: float) -> None:
    model, whole = build(), build()
    memory = ExpertMemory(num_bytes)
    fix_weights(model, WeightType.float32, memory, expert_kind=ExpertType.int4)
    fix_weights(whole, WeightType.float32, expert_kind=ExpertType.int4)
    assert torch.equal(logits(model), logits(whole))
    one, num_experts = 2 * 32 * 64 * 5 // 8, 2 * 4
    assert one <= memory.num_used <= min(max(num_bytes, one), num_experts * one)
    assert memory.num_used % one == 0


@pytest.mark.parametrize("num_bytes", [0, 40_000, 1e9])
def test_a_budget_for_experts_changes_nothing_but_memory(num_bytes: float) -> None:
    model, whole = build(), build()
    memory = ExpertMemory(num_bytes)
    fix_weights(model, WeightType.float32, memory)
    fix_weights(whole, WeightType.float32)
    assert torch.equal(logits(model), logits(whole))
    one = 2 * 32 * 64 * 4
    assert one <= memory.num_used <= max(num_bytes, one)


def test_symbols_beyond_the_vocabulary_are_never_likely() -> None:
    model = build()
    fix_weights(model, WeightType.float32)
    with torch.inference_mode():
        found = model.project(torch.randn(3, 32))
    assert found.shape == (3, 128)
    assert (found[:, 70:] == float("-inf")).all()
    assert found[:, :70].isfinite().all()


def test_wrong_dtypes_are_refused() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert check_dtype("int8", cpu) is WeightType.int8
    with pytest.raises(ConfigError, match="one of float32, bfloat16, int8 on cpu, but is 'int4'"):
        check_dtype("int4", cpu)
    with pytest.raises(ConfigError, match="one of float32, bfloat16 on cuda, but is 'int8'"):
        check_dtype("int8", cuda)


def test_wrong_dtypes_of_experts_are_refused() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert check_expert_dtype("int4", cpu) is ExpertType.int4
    assert check_expert_dtype(None, cuda) is None
    with pytest.raises(ConfigError, match="must be int4, or left out, but is 'int8'"):
        check_expert_dtype("int8", cpu)
    with pytest.raises(ConfigError, match="must be left out on cuda, but is 'int4'"):
        check_expert_dtype("int4", cuda)
