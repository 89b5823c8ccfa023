from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from mtmoe.config import WeightType
from mtmoe.ops import fixed_linear
from mtmoe.ops.fixed_linear import FixedLinear, rounded_up
from mtmoe.ops.int8_rows import quantize_rows

SHAPES = [(512, 512), (64, 192), (512, 2048), (2048, 512), (33, 50), (256, 16)]


@pytest.fixture(params=["our own product where there is one", "oneDNN's"], autouse=True)
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "oneDNN's":
        monkeypatch.setattr(fixed_linear, "can_pack", lambda *_: False)


def make(K: int, N: int, kind: WeightType, **options: bool) -> tuple[Tensor, Tensor, FixedLinear]:
    generator = torch.Generator().manual_seed(K + N)
    weight, bias = torch.randn(N, K, generator=generator), torch.randn(N, generator=generator)
    return weight, bias, FixedLinear(weight, bias, kind, **options)


def rows(K: int) -> Tensor:
    return torch.randn(150, K, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize(("K", "N"), SHAPES)
@pytest.mark.parametrize(
    ("kind", "error"),
    [(WeightType.float32, 1e-5), (WeightType.bfloat16, 0.02), (WeightType.int8, 0.02)],
)
@torch.inference_mode()
def test_a_product_is_that_of_linear(K: int, N: int, kind: WeightType, error: float) -> None:
    weight, bias, fixed = make(K, N, kind)
    x = rows(K)
    expected = F.linear(x.double(), weight.double(), bias.double())
    difference = (fixed(x.view(2, 75, K)).view(150, N) - expected).pow(2).mean().sqrt()
    assert difference < error * expected.pow(2).mean().sqrt()


@pytest.mark.parametrize(("K", "N"), SHAPES)
@pytest.mark.parametrize("kind", list(WeightType))
@torch.inference_mode()
def test_a_row_has_the_same_bits_whatever_stands_beside_it(
    K: int, N: int, kind: WeightType
) -> None:
    _, _, fixed = make(K, N, kind)
    x = rows(K)
    expected = fixed(x)
    for start, stop in ((0, 1), (3, 4), (7, 40), (20, 150), (16, 32), (0, 130)):
        assert torch.equal(fixed(x[start:stop].clone()), expected[start:stop])


@pytest.mark.parametrize("kind", list(WeightType))
@torch.inference_mode()
def test_weights_may_lie_the_other_way_round(kind: WeightType) -> None:
    weight, bias, fixed = make(64, 192, kind)
    other = FixedLinear(weight.t().contiguous().t(), bias, kind)
    assert torch.equal(other(rows(64)), fixed(rows(64)))


@pytest.mark.parametrize("kind", list(WeightType))
@torch.inference_mode()
def test_its_own_relu_is_relu(kind: WeightType) -> None:
    plain, own = (make(64, 192, kind, has_relu=flag)[2](rows(64)) for flag in (False, True))
    assert torch.equal(own, plain.relu())


def test_int8_sums_are_those_of_the_rounded_numbers() -> None:
    weight, bias, fixed = make(96, 40, WeightType.int8)
    x = rows(96)
    (q, scale), (r, by_output) = quantize_rows(x), quantize_rows(weight)
    exact = (q.double() @ r.double().t()) * scale.double() * by_output.double().t() + bias
    with torch.inference_mode():
        assert_close(fixed(x).double(), exact, rtol=1e-5, atol=1e-4)


def test_rounded_rows_are_within_half_a_step_and_rows_of_zeros_stay_zero() -> None:
    x = rows(96)
    x[3] = 0
    q, scale = quantize_rows(x)
    assert ((q * scale - x).abs() <= scale / 2 * 1.0001).all()
    assert int(q.abs().max()) == 127
    assert not q[3].any()


@pytest.mark.parametrize("kind", list(WeightType))
@torch.inference_mode()
def test_no_rows_give_none(kind: WeightType) -> None:
    assert make(64, 192, kind)[2](torch.empty(0, 64)).shape == (0, 192)


def test_numbers_of_rows_are_few_and_close() -> None:
    found = [rounded_up(num_rows) for num_rows in range(8001)]
    assert all(n <= more <= max(n * 17 / 16, n + 3, 4) for n, more in enumerate(found))
    assert found == sorted(found)
    assert len(set(found)) < 150
    assert all(rounded_up(1 << n) == 1 << n for n in range(2, 13))
