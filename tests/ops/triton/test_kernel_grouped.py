"""The experts' FFN by grouped kernels equals its definition, with all gradients."""

from __future__ import annotations

import pytest
import torch

from mtmoe.config import Activation
from mtmoe.errors import ConfigError
from mtmoe.ops import expert_ffn as definition
from mtmoe.ops.expert_ffn import ExpertWeights
from mtmoe.ops.triton import blocks
from mtmoe.ops.triton.grouped import expert_ffn

LOADS = [  # counts, rows behind them
    ([20, 0, 3], 0),
    ([0, 0, 0], 0),
    ([0, 0, 0], 5),  # all dropped
    ([0, 40, 0], 0),  # all on one
    ([33], 2),  # one expert
    ([1, 1, 1, 1, 1], 18),
]
TOLERANCE = {torch.bfloat16: 3e-2, torch.float16: 4e-3}  # of the largest number


def draw(counts, unused, activation, device, dtype=torch.float32, D=20, F=70):
    """Rows, of which the last `unused` are NaN, and weights."""
    E, R = len(counts), sum(counts) + unused
    generator = torch.Generator().manual_seed(R)

    def normal(*shape, scale=1.0):
        numbers = scale * torch.randn(*shape, generator=generator)
        return numbers.to(device, dtype).requires_grad_()

    rows = normal(R, D)
    with torch.no_grad():
        rows[sum(counts) :] = torch.nan
    w_in, w_gate = normal(E, D, F, scale=D**-0.5), normal(E, D, F, scale=D**-0.5)
    w_out = normal(E, F, D, scale=F**-0.5)
    gate = w_gate if activation is Activation.swiglu else None
    weights = ExpertWeights(w_in, normal(E, F), w_out, normal(E, D), gate)
    return rows, torch.tensor(counts, device=device), weights


def expected_of(rows, counts, weights, activation):
    """The definition in float32; its gradients reach the given tensors."""
    used = rows[: int(counts.sum())].float()
    wide = ExpertWeights(*(None if t is None else t.float() for t in weights))
    return definition.expert_ffn(used, counts, wide, activation)


def check(found, expected, inputs, tolerance=None):
    """Outputs and gradients are equal, up to rounding, and 0 in unused rows."""
    num_rows = expected.shape[0]
    assert not found[num_rows:].any()
    grad = torch.randn(found.shape, generator=torch.Generator().manual_seed(7))
    grad[num_rows:] = torch.nan
    grad = grad.to(found.device, found.dtype).t().contiguous().t()  # in another memory order
    ours = torch.autograd.grad(found, inputs, grad)
    theirs = torch.autograd.grad(expected, inputs, grad[:num_rows].float())
    assert not ours[0][num_rows:].any()
    for mine, other, given in zip(
        (found[:num_rows], *ours), (expected, *theirs), (None, *inputs), strict=True
    ):
        assert given is None or mine.dtype == given.dtype
        largest = other.abs().max().item() if tolerance and other.numel() else 0
        options = {"rtol": tolerance, "atol": tolerance * largest} if tolerance else {}
        torch.testing.assert_close(
            mine.float(), other.float(), **options or {"rtol": 1e-4, "atol": 1e-4}
        )


def inputs_of(rows, weights):
    return [rows, *(t for t in weights if t is not None)]


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize(("counts", "unused"), LOADS)
def test_ffn_equals_its_definition_with_gradients(counts, unused, activation, device):
    rows, counts, weights = draw(counts, unused, activation, device)
    found = expert_ffn(rows, counts, weights, activation)
    check(found, expected_of(rows, counts, weights, activation), inputs_of(rows, weights))


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize(("D", "F"), [(32, 160), (21, 70)], ids=["aligned", "odd"])
def test_ffn_in_half_precision_equals_its_definition(D, F, dtype, activation, device):
    rows, counts, weights = draw([20, 0, 3], 2, activation, device, dtype, D, F)
    found = expert_ffn(rows, counts, weights, activation)
    assert found.dtype == dtype
    expected = expected_of(rows, counts, weights, activation)
    check(found, expected, inputs_of(rows, weights), TOLERANCE[dtype])


@pytest.mark.parametrize("height", [32, 64, 128])
def test_tiles_of_any_height_give_the_same(height, device, monkeypatch):
    monkeypatch.setattr("mtmoe.ops.triton.grouped.rows_per_tile", lambda *_: height)
    rows, counts, weights = draw([20, 0, 75], 2, Activation.relu, device)
    found = expert_ffn(rows, counts, weights)
    check(found, expected_of(rows, counts, weights, Activation.relu), inputs_of(rows, weights))


@pytest.mark.parametrize("activation", list(Activation))
def test_autocast_computes_in_its_dtype_and_gives_gradients_in_that_of_the_weights(
    activation, device
):
    rows, counts, weights = draw([20, 0, 3], 2, activation, device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found = expert_ffn(rows, counts, weights, activation)
    assert found.dtype == torch.bfloat16
    expected = expected_of(rows, counts, weights, activation)
    check(found, expected, inputs_of(rows, weights), TOLERANCE[torch.bfloat16])


def test_non_contiguous_tensors_are_read_as_what_they_are(device):
    activation = Activation.swiglu
    rows, counts, weights = draw([20, 0, 3], 0, activation, device)
    across = lambda t: t.detach().transpose(-1, -2).contiguous().transpose(-1, -2).requires_grad_()  # noqa: E731
    rows, weights = across(rows), ExpertWeights(*(across(t) for t in weights))
    assert not rows.is_contiguous()
    assert not weights.w_in.is_contiguous()
    found = expert_ffn(rows, counts, weights, activation)
    check(found, expected_of(rows, counts, weights, activation), inputs_of(rows, weights))


@pytest.mark.parametrize("activation", list(Activation))
def test_inference_gives_the_same_and_keeps_nothing(activation, device):
    rows, counts, weights = draw([20, 0, 3], 2, activation, device)
    trained = expert_ffn(rows, counts, weights, activation)
    with torch.no_grad():
        found = expert_ffn(rows, counts, weights, activation)
    assert found.grad_fn is None
    assert torch.equal(found, trained)


def test_frozen_experts_pass_the_gradient_on(device):
    rows, counts, weights = draw([20, 0, 3], 2, Activation.gelu, device)
    frozen = ExpertWeights(*(None if t is None else t.detach() for t in weights))
    found = expert_ffn(rows, counts, frozen, Activation.gelu)
    check(found, expected_of(rows, counts, frozen, Activation.gelu), [rows])


def test_nan_in_used_rows_is_not_hidden(device):
    rows, counts, weights = draw([2, 0, 3], 0, Activation.relu, device)
    with torch.no_grad():
        rows[1, 0] = torch.nan
    out = expert_ffn(rows, counts, weights)
    assert out.isnan().any(1).tolist() == [False, True, False, False, False]


def test_float64_is_refused(device):
    rows, counts, weights = draw([2, 0, 3], 0, Activation.relu, device, torch.float64)
    with pytest.raises(ConfigError, match="Use backend=torch"):
        expert_ffn(rows, counts, weights)
    assert torch.float64 not in blocks.DTYPES
