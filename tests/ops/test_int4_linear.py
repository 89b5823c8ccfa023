from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from mtmoe.ops.int4_linear import Int4Linear, quantize_groups

SHAPES = [(512, 2048), (2048, 512), (64, 192), (96, 48), (33, 50), (16, 1), (256, 16)]


def make(N: int, K: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(K + N)
    return torch.randn(N, K, generator=generator), torch.randn(N, generator=generator)


def rows(K: int) -> Tensor:
    return torch.randn(150, K, generator=torch.Generator().manual_seed(9))


def stored(weight: Tensor) -> Tensor:
    """What 4 bits keep of (N, K) weights, K of any size."""
    K = weight.shape[1]
    return quantize_groups(F.pad(weight, (0, -K % 32))).weight()[:, :K]


def test_weights_are_the_nearest_of_sixteen() -> None:
    weight = make(3, 64)[0]
    groups = quantize_groups(weight)
    found = groups.weight()
    for n in range(3):
        for k in range(64):
            step, offset = (t[n, k // 32].item() for t in (groups.step, groups.offset))
            choices = [offset + (number - 8) * step for number in range(16)]
            nearest = min(choices, key=lambda choice: abs(choice - weight[n, k].item()))
            assert found[n, k].item() == pytest.approx(nearest, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("shift", [0.0, 0.5, -3.0, 1000.0])
@pytest.mark.parametrize("size", [1e-20, 1e-3, 1.0, 1e10])
def test_a_weight_is_at_most_half_a_step_away(size: float, shift: float) -> None:
    weight = (make(40, 320)[0] + shift) * size
    groups = quantize_groups(weight)
    half = groups.step.float().repeat_interleave(32, 1) / 2
    assert ((groups.weight() - weight).abs() <= half * 1.001).all()
    for part, step in zip(weight.split(32, 1), groups.step.float().unbind(1), strict=True):
        width = part.amax(1).clamp(min=0) - part.amin(1).clamp(max=0)
        assert_close(step, width / 15, rtol=2**-8, atol=0)


def test_weights_of_zero_stay_zero() -> None:
    weight = make(4, 64)[0]
    weight[1, :32] = 0
    assert stored(weight)[1, :32].abs().max() < 1e-28


@pytest.mark.parametrize(("K", "N"), SHAPES)
@torch.inference_mode()
def test_a_product_is_that_of_linear_with_the_stored_weights(K: int, N: int) -> None:
    weight = make(N, K)[0]
    x = rows(K)
    expected = F.linear(x.bfloat16().float(), stored(weight)).bfloat16().float()
    found = Int4Linear(weight, None)(x.view(2, 75, K)).view(150, N)
    assert_close(found, expected, rtol=2**-7, atol=1e-4)
    difference = (found - expected).pow(2).mean().sqrt()  # few sums are rounded the other way
    assert difference < 3e-4 * expected.pow(2).mean().sqrt()


@pytest.mark.parametrize(("K", "N"), SHAPES)
@torch.inference_mode()
def test_a_row_has_the_same_bits_whatever_stands_beside_it(K: int, N: int) -> None:
    fixed, x = Int4Linear(*make(N, K)), rows(K)
    expected = fixed(x)
    for num in range(1, 71):
        assert torch.equal(fixed(x[:num]), expected[:num])
        assert torch.equal(fixed(x[num:].clone()), expected[num:])
    assert torch.equal(fixed(x.t().contiguous().t()), expected)


@torch.inference_mode()
def test_its_own_relu_is_relu_and_a_bias_may_be_missing() -> None:
    weight, bias = make(192, 64)
    plain, own = (Int4Linear(weight, bias, has_relu=flag)(rows(64)) for flag in (False, True))
    assert torch.equal(own, plain.relu())
    assert torch.equal(Int4Linear(weight, None)(rows(64)) + bias, plain)


def test_weights_take_five_bits() -> None:
    assert Int4Linear(*make(512, 2048)).num_bytes == 512 * 2048 * 5 // 8
    assert Int4Linear(*make(1, 16)).num_bytes == 16 * 32 * 5 // 8  # the smallest that is stored


@torch.inference_mode()
def test_no_rows_give_none() -> None:
    assert Int4Linear(*make(192, 64))(torch.empty(0, 64)).shape == (0, 192)
