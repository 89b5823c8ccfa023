"""The CPU path equals the torch definition, outputs and all gradients."""

from __future__ import annotations

import copy
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtmoe.config import Activation
from mtmoe.ops import cpu_experts, cpu_matmul
from mtmoe.ops.backend import CPU, TORCH
from mtmoe.ops.buffers import BufferPool
from mtmoe.ops.cpu_blocks import Blocks
from mtmoe.ops.cpu_experts import fused_experts
from mtmoe.ops.cpu_padded import is_padding_cheap
from mtmoe.ops.dispatch import sort_by_expert
from mtmoe.ops.expert_ffn import ExpertWeights
from mtmoe.ops.routing import assign_slots


def draw_case(T, E, K, capacity, activation, dtype=torch.float64, D=5, F=7, seed=0):
    """Leaves x, weight and the experts' weights, and the permutation."""
    generator = torch.Generator().manual_seed(seed)
    expert = torch.rand(T, E, generator=generator).pow(3).argsort(1)[:, :K]
    order = sort_by_expert(expert, assign_slots(expert, E, capacity), E)
    shapes = [(T, D), (T, K), (E, D, F), (E, F), (E, F, D), (E, D)]
    shapes += [(E, D, F)] if activation is Activation.swiglu else []
    leaves = [torch.randn(*s, generator=generator, dtype=dtype) for s in shapes]
    leaves[1] = leaves[1].to(torch.promote_types(dtype, torch.float32))
    return [leaf.requires_grad_() for leaf in leaves], order


def run(backend, leaves, order, activation, buffers=None):
    x, weight, *weights = leaves
    y = backend.run_experts(x, weight, order, ExpertWeights(*weights), activation, buffers=buffers)
    scale = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape)
    return y, torch.autograd.grad((y * scale).sum(), leaves)


@settings(deadline=None, max_examples=60)
@given(
    T=st.integers(0, 14),
    E=st.integers(1, 5),
    capacity=st.integers(1, 14),
    activation=st.sampled_from(Activation),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_cpu_path_equals_the_definition(T, E, capacity, activation, seed, data):
    K = data.draw(st.integers(1, E))
    leaves, order = draw_case(T, E, K, capacity, activation, seed=seed)
    expected, expected_gradients = run(TORCH, leaves, order, activation)
    found, gradients = run(CPU, leaves, order, activation, BufferPool())
    torch.testing.assert_close(found, expected)
    for mine, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("is_cheap", [False, True])
def test_expert_by_expert_and_padded_equal_the_definition(activation, is_cheap, monkeypatch):
    monkeypatch.setattr(cpu_experts, "is_padding_cheap", lambda _: is_cheap)
    leaves, order = draw_case(40, 5, 2, 12, activation)
    expected, expected_gradients = run(TORCH, leaves, order, activation)
    found, gradients = run(CPU, leaves, order, activation)
    torch.testing.assert_close(found, expected)
    for mine, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(mine, other)


def test_padding_is_chosen_for_many_experts_with_few_rows_each():
    assert is_padding_cheap(Blocks([8] * 128))
    assert not is_padding_cheap(Blocks([512] * 16))
    assert not is_padding_cheap(Blocks([100, *[0] * 127])), "all tokens on one expert"
    assert not is_padding_cheap(Blocks([]))
    assert not is_padding_cheap(Blocks([0, 0]))


@pytest.mark.parametrize("activation", list(Activation))
def test_cpu_path_passes_gradcheck(activation):
    leaves, order = draw_case(4, 3, 2, 2, activation, D=3, F=2)

    def function(x, weight, *weights):
        return fused_experts(x, weight, order, ExpertWeights(*weights), activation)

    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("computes_in_float32", [False, True])
@pytest.mark.parametrize("activation", list(Activation))
def test_bfloat16_is_as_near_to_float32_as_the_definition(
    activation, computes_in_float32, monkeypatch
):
    dtype = torch.float32 if computes_in_float32 else torch.bfloat16
    monkeypatch.setattr(cpu_experts, "compute_dtype", lambda _: dtype)
    leaves, order = draw_case(60, 4, 2, 40, activation, torch.float32, D=16, F=32)
    half = [leaf.detach().bfloat16().requires_grad_() for leaf in leaves]
    half[1] = leaves[1]
    exact, exact_gradients = run(TORCH, leaves, order, activation)
    found, gradients = run(CPU, half, order, activation)
    assert found.dtype == torch.bfloat16
    for mine, other in zip((found, *gradients), (exact, *exact_gradients), strict=True):
        scale = other.abs().max()
        assert (mine.float() - other).abs().max() / scale < 0.03


def test_autocast_computes_in_bfloat16_and_gives_float32_gradients():
    leaves, order = draw_case(20, 3, 1, 20, Activation.relu, torch.float32)
    exact, _ = run(TORCH, leaves, order, Activation.relu)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x, weight, *weights = leaves
        y = CPU.run_experts(x, weight, order, ExpertWeights(*weights), Activation.relu)
    gradients = torch.autograd.grad(y.float().sum(), leaves)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, rtol=0.05, atol=0.2)
    assert all(g.dtype == torch.float32 for g in gradients)


def test_a_non_contiguous_gradient_is_not_permuted():
    leaves, order = draw_case(6, 2, 1, 6, Activation.relu)
    x, weight, *weights = leaves
    scale = torch.randn(5, 6, dtype=torch.float64).t()  # (T, D), column-major
    for backend in (TORCH, CPU):
        y = backend.run_experts(x, weight, order, ExpertWeights(*weights), Activation.relu)
        y.backward(scale)
        found = x.grad
        x.grad = None
        if backend is TORCH:
            expected = found
    torch.testing.assert_close(found, expected)


def test_two_forwards_before_their_backwards_do_not_share_memory():
    leaves, order = draw_case(8, 3, 1, 8, Activation.gelu)
    x, weight, *weights = leaves
    pool, experts = BufferPool(), ExpertWeights(*weights)
    other = torch.randn_like(x)
    first = CPU.run_experts(x, weight, order, experts, Activation.gelu, buffers=pool)
    CPU.run_experts(other, weight, order, experts, Activation.gelu, buffers=pool)
    expected = TORCH.run_experts(x, weight, order, experts, Activation.gelu)
    ours, theirs = (torch.autograd.grad(y.sum(), leaves) for y in (first, expected))
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference)


def test_gradients_that_somebody_keeps_are_not_overwritten():
    leaves, order = draw_case(8, 3, 1, 8, Activation.relu)
    x, weight, *weights = leaves
    pool, experts, w_in = BufferPool(), ExpertWeights(*weights), weights[0]
    addresses, kept = [], []
    for step in range(4):
        y = CPU.run_experts(x * (step + 1), weight, order, experts, Activation.relu, buffers=pool)
        y.sum().backward()
        addresses.append(w_in.grad.data_ptr())
        if step == 0:
            kept = [w_in.grad, w_in.grad.clone()]
        w_in.grad = None
    assert torch.equal(*kept)
    assert addresses[1] == addresses[2] == addresses[3], "freed memory is used again"
    assert addresses[0] != addresses[1], "kept memory is not"


def test_a_pool_is_not_copied_with_its_layer():
    pool = BufferPool()
    pool.empty("a", torch.zeros(1), 3)
    for other in (copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
        assert isinstance(other, BufferPool)
        assert other._kept == {}


def test_a_pool_gives_threads_different_memory():
    pool, like = BufferPool(), torch.zeros(1)

    def take(number):
        buffer = pool.empty("hidden", like, 1000)
        buffer.fill_(number)
        time.sleep(0.001)
        return bool((buffer == number).all())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(take, range(64)))


def test_a_pool_serves_inference_after_training_and_training_after_inference():
    leaves, order = draw_case(8, 3, 1, 8, Activation.relu)
    pool = BufferPool()
    for _ in range(2):
        _, gradients = run(CPU, leaves, order, Activation.relu, pool)
        with torch.inference_mode():
            x, weight, *weights = leaves
            CPU.run_experts(x, weight, order, ExpertWeights(*weights), buffers=pool)
    assert all(torch.isfinite(g).all() for g in gradients)


def test_choosing_a_product_leaves_no_setting_behind(monkeypatch):
    setting = torch.backends.mkldnn.matmul
    before = setting.fp32_precision
    monkeypatch.setattr(cpu_matmul, "is_onednn_faster", lambda: True)
    with cpu_matmul.fastest_float32():
        assert setting.fp32_precision == "bf16"
        with cpu_matmul.fastest_float32():
            pass
        assert setting.fp32_precision == "bf16", "the outer user is still inside"
    assert setting.fp32_precision == before
    assert isinstance(cpu_matmul.is_onednn_faster(), bool)


@pytest.mark.parametrize("rows_per_expert", [4, 40])
def test_without_a_backward_pass_no_hidden_numbers_are_kept(rows_per_expert):
    leaves, order = draw_case(8 * rows_per_expert, 8, 1, rows_per_expert, Activation.relu)
    x, weight, *weights = leaves
    sizes = []
    for is_trained in (False, True):
        pool = BufferPool()
        with torch.set_grad_enabled(is_trained):
            CPU.run_experts(x, weight, order, ExpertWeights(*weights), buffers=pool)
        sizes.append(pool._kept["hidden"].numel() // 7)
    assert sizes[0] == int(order.counts.max())
    assert sizes[1] >= int(order.counts.sum())
