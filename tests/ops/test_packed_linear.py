from __future__ import annotations

import ctypes

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from mtmoe.config import TransformerConfig, WeightType, build_config
from mtmoe.inference.fixed_network import FixedFeedForward, run_each
from mtmoe.modules.experts import FeedForward
from mtmoe.ops.fixed_linear import FixedLinear
from mtmoe.ops.int8_rows import quantize_rows
from mtmoe.ops.packed_linear import PackedLinear, can_pack, multiply_groups
from tests.inference.tiny_model import SIZES

KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(not can_pack(kind), reason=f"no {kind} here"))
    for kind in WeightType
]
SHAPES = [(1, 1), (3, 31), (17, 545), (64, 192), (15, 16), (512, 2048), (2048, 48)]
ROWS = [1, 2, 5, 12, 13, 24, 31, 240, 241, 500]  # tiles have 12 rows, chunks 240


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def make(K: int, N: int, kind: WeightType, seed: int = 0) -> tuple[PackedLinear, Tensor, Tensor]:
    """A map, and in float64 the weight that it multiplies by, and its bias."""
    weight, bias = numbers(N + seed, K)[seed:], numbers(N)
    if kind is WeightType.int8:
        rounded, scale = quantize_rows(weight)
        packed = PackedLinear(weight, bias, kind, has_relu=False)
        return packed, rounded.double() * scale.double(), bias.double()
    rounded = weight.to(getattr(torch, kind))
    return PackedLinear(weight, bias, kind, has_relu=False), rounded.double(), bias.double()


def as_multiplied(x: Tensor, kind: WeightType) -> Tensor:
    """The numbers that rows are rounded to, in float64."""
    if kind is WeightType.float32:
        return x.double()
    if kind is WeightType.bfloat16:
        return x.bfloat16().double()
    scale = x.abs().amax(1, keepdim=True) / 127
    return (x / scale + 128.5).floor().sub(128).double() * scale.double()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("K", "N"), SHAPES)
def test_a_product_is_that_of_linear(K: int, N: int, kind: WeightType) -> None:
    packed, weight, bias = make(K, N, kind)
    for M in ROWS:
        x = numbers(M, K)
        expected = F.linear(as_multiplied(x, kind), weight, bias)
        found = multiply_groups([packed], [M], x)
        assert found.dtype == torch.float32
        tolerance = 0.02 if kind is WeightType.int8 else 1e-4  # where a row lies between two bytes
        assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * K**0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_each_multiplied_by_their_own_map_in_the_same_bits(kind: WeightType) -> None:
    maps = [make(33, 50, kind, seed)[0] for seed in range(4)]
    sizes = [7, 0, 260, 1]
    x = numbers(sum(sizes), 33)
    parts = zip(maps, sizes, x.split(sizes), strict=True)
    expected = torch.cat([multiply_groups([m], [n], part) for m, n, part in parts])
    assert torch.equal(multiply_groups(maps, sizes, x), expected)
    assert not torch.equal(expected[:7], multiply_groups(maps[1:2], [7], x[:7]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_the_same_bits_in_any_tile(kind: WeightType) -> None:
    packed, _, _ = make(130, 70, kind)
    x = numbers(500, 130)
    expected = multiply_groups([packed], [500], x)
    for start in (0, 3, 239):
        for M in range(1, 30):
            found = multiply_groups([packed], [M], x[start : start + M])
            assert torch.equal(found, expected[start : start + M])


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_and_dtypes_of_the_caller_change_nothing(kind: WeightType) -> None:
    x = numbers(6, 20).bfloat16()
    expected = multiply_groups([make(20, 45, kind)[0]], [6], x.float())
    weight, bias = numbers(45, 20), numbers(45)
    torch.set_default_dtype(torch.float64)
    try:
        packed = PackedLinear(weight, bias, kind, has_relu=False)
    finally:
        torch.set_default_dtype(torch.float32)
    found = multiply_groups([packed], [6], x)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    with pytest.raises(AssertionError, match="beside"):
        multiply_groups([packed], [6], numbers(6, 19))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_written_beside_the_outputs(kind: WeightType) -> None:
    packed, _, _ = make(20, 45, kind)
    around = torch.full((13 * 45 + 64,), 7.0)
    x, first = numbers(13, 20), around[32:]
    pointers = (ctypes.c_void_p * 1)(packed.address), (ctypes.c_int64 * 1)(13)
    packed.library.multiply(*pointers, 1, x.data_ptr(), first.data_ptr())
    assert torch.equal(first[: 13 * 45].view(13, 45), multiply_groups([packed], [13], x))
    assert (around[:32] == 7).all()
    assert (around[32 + 13 * 45 :] == 7).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_number_stays_none_in_its_row_only(kind: WeightType) -> None:
    weight = numbers(40, 24)
    for has_relu in (False, True):
        fixed = FixedLinear(weight, None, kind, has_relu)
        assert fixed.packed is not None
        x = numbers(5, 24)
        x[1, 3], x[3, 23] = float("nan"), float("inf")
        out = fixed(x)
        assert out[1].isnan().all()
        assert not out[3].isfinite().all()
        assert out[[0, 2, 4]].isfinite().all()


@pytest.mark.parametrize("activation", ["relu", "gelu", "swiglu"])
def test_networks_are_run_each_on_its_rows(activation: str) -> None:
    generator = torch.manual_seed(3)
    config = build_config(TransformerConfig, {**SIZES, "activation": activation})
    plain = [FeedForward(config, 40).eval() for _ in range(3)]
    fixed = [FixedFeedForward.of(each, WeightType.float32) for each in plain]
    sizes, x = [3, 14, 1], torch.randn(18, config.embed_dim, generator=generator)
    with torch.no_grad():
        expected = [each(part) for each, part in zip(plain, x.split(sizes), strict=True)]
        assert_close(run_each(fixed, sizes, x), torch.cat(expected), rtol=1e-5, atol=1e-5)
        assert torch.equal(run_each(fixed, sizes, x)[3:17], fixed[1](x[3:17]))
