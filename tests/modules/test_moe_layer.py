"""The MoE layer equals a loop over tokens, on every backend and in every mode."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mtmoe.config import (
    Activation,
    BackendChoice,
    ChooseBy,
    RouterConfig,
    SharedMode,
    TransformerConfig,
    build_config,
)
from mtmoe.errors import ConfigError
from mtmoe.modules.initialise import initialise
from mtmoe.modules.moe_layer import MoELayer
from mtmoe.modules.tokens import Tokens
from mtmoe.ops.backend import select_backend
from mtmoe.ops.routing import SKIPPED, RouterKey

D = 8
BACKENDS = [BackendChoice.torch, BackendChoice.cpu]
KEY = RouterKey(1, 1)
TOKENS = Tokens((2, 5), real=torch.tensor([0, 1, 2, 5, 6, 7, 8, 9]))


def make_layer(dtype=torch.float64, choose_by=ChooseBy.token, router=None, **settings):
    router = RouterConfig(**({"num_experts": 4, "jitter": 0.0} | (router or {})))
    sizes = {"embed_dim": D, "ffn_dim": 6, "attention_heads": 2, "moe_every": 1}
    layer = MoELayer(TransformerConfig(**(sizes | settings), router=router), 0, choose_by)
    initialise(layer, 3)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.endswith(("b_in", "b_out", "bias")):
                parameter.uniform_(-1, 1, generator=torch.Generator().manual_seed(5))
    return layer.to(dtype)


def make_x(seed=0, dtype=torch.float64, shape=(2, 5, D)):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def layer_by_loop(layer, x, routing):
    """The output of each real token; padding gives 0."""
    w, y = layer.experts, torch.zeros_like(x).view(-1, D)
    flat = x.reshape(-1, D)
    for t, position in enumerate(TOKENS.real.tolist()):
        total = torch.zeros(D, dtype=x.dtype)
        for k in range(routing.expert.shape[1]):
            e = int(routing.expert[t, k])
            if routing.slot[t, k] < 0:
                continue
            hidden = (flat[position] @ w.w_in[e] + w.b_in[e]).relu()
            out = hidden @ w.w_out[e] + w.b_out[e]
            total = total + routing.weight[t, k].to(x.dtype) * out
        y = torch.cat([y[:position], total[None], y[position + 1 :]])
    return y.view(x.shape)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("choose_by", "router"),
    [
        (ChooseBy.token, {}),
        (ChooseBy.token, {"top_k": 2, "capacity_factor": 0.6}),
        (ChooseBy.token, {"num_experts": 1}),
        (ChooseBy.expert, {"top_k": 2}),
    ],
)
def test_layer_equals_a_loop_over_tokens_with_gradients(backend, choose_by, router):
    layer = make_layer(choose_by=choose_by, router=router, backend=backend)
    x = make_x().requires_grad_()
    y, routing = layer(x, TOKENS, KEY)
    expected = layer_by_loop(layer, x, routing)
    torch.testing.assert_close(y, expected)
    scale = make_x(1)
    inputs = [x, *layer.parameters()]
    ours = torch.autograd.grad((y * scale).sum(), inputs, retain_graph=True, allow_unused=True)
    theirs = torch.autograd.grad((expected * scale).sum(), inputs, allow_unused=True)
    for mine, other in zip(ours, theirs, strict=True):
        if other is not None:
            torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("mode", list(SharedMode))
def test_shared_network_joins_by_its_mode(mode):
    layer = make_layer(shared_ffn_dim=5, shared_mode=mode, gate_budget=0.3)
    x = make_x()
    y, routing = layer(x, TOKENS, KEY)
    experts = layer_by_loop(layer, x, routing)
    shares = []
    for position in TOKENS.real.tolist():
        b, s = divmod(position, 5)
        shared = layer.shared(x[b, s])
        share = (1.0, 1.0)
        if mode is not SharedMode.add:
            score = layer.shared_gate.score(x[b, s])
            g, both = score.detach().sigmoid()[0].item(), score.detach().softmax(0).tolist()
            share = (g, 1 - g) if mode is SharedMode.conditional else both
        shares.append(share[0])
        torch.testing.assert_close(y[b, s], share[0] * experts[b, s] + share[1] * shared)
    is_conditional = mode is SharedMode.conditional
    expected = abs(sum(shares) / len(shares) - 0.3) if is_conditional else 0.0
    assert routing.gate_loss.item() == pytest.approx(expected)
    assert (y[0, 3:] == 0).all(), "padding"


def test_gate_dropout_leaves_some_tokens_to_the_shared_network_alone():
    settings = {"shared_ffn_dim": 5, "shared_mode": SharedMode.conditional, "gate_dropout": 0.5}
    layer, x = make_layer(**settings), make_x(shape=(1, 400, D))
    tokens = Tokens((1, 400))
    y, _ = layer(x, tokens, KEY)
    is_alone = (y - layer.shared(x)).abs().amax(2) < 1e-12
    assert 0.4 < is_alone.double().mean() < 0.6
    y, _ = layer.eval()(x, tokens)
    assert not ((y - layer.shared(x)).abs().amax(2) < 1e-12).any()


def test_gating_dropout_skips_the_layer_in_its_share_of_updates_alike_on_all_ranks():
    layer = make_layer(router={"gating_dropout": 0.25})
    x, skipped = make_x(), 0
    for update in range(200):
        results = [layer(x, TOKENS, RouterKey(update, share)) for share in (1, 2)]
        is_skipped = [bool((routing.slot == SKIPPED).all()) for _, routing in results]
        assert is_skipped[0] == is_skipped[1], "all ranks of an update must agree"
        assert all(bool((y == 0).all()) == s for (y, _), s in zip(results, is_skipped, strict=True))
        skipped += is_skipped[0]
    assert 30 < skipped < 70
    assert (layer.eval()(x, TOKENS)[1].slot >= 0).all()


@pytest.mark.parametrize("activation", list(Activation))
def test_backends_agree_in_float32(activation):
    x, results = make_x(dtype=torch.float32), []
    for backend in BACKENDS:
        layer = make_layer(torch.float32, activation=activation, backend=backend)
        y, _ = layer(x, TOKENS, KEY)
        y.square().sum().backward()
        results.append((y, *(p.grad for p in layer.parameters())))
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layer_works_without_tokens_and_with_all_tokens_on_one_expert(backend, dtype):
    layer = make_layer(dtype, backend=backend, router={"num_experts": 6, "capacity_factor": 9.0})
    empty = Tokens((1, 3), real=torch.empty(0, dtype=torch.int64))
    x = make_x(shape=(1, 3, D)).to(dtype).requires_grad_()
    y, _ = layer(x, empty, KEY)
    y.sum().backward()
    assert (y == 0).all()
    assert all(p.grad is None or (p.grad == 0).all() for p in layer.parameters())
    same = x.detach()[:, :1].expand(1, 40, D).clone()
    y, routing = layer(same, Tokens((1, 40)), KEY)
    y.float().sum().backward()
    assert len(set(routing.expert.flatten().tolist())) == 1
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_recomputed_layer_has_the_same_gradients(backend, use_reentrant):
    noisy = {"jitter": 0.2, "top_k": 2, "capacity_factor": 0.5, "expert_output_masking": 0.2}
    layer = make_layer(router=noisy, backend=backend)
    x = make_x().requires_grad_()
    inputs = [x, *layer.parameters()]

    def run(x):
        return layer(x, TOKENS, KEY)[0]

    gradients = []
    for y in (run(x), checkpoint(run, x, use_reentrant=use_reentrant)):
        for leaf in inputs:
            leaf.grad = None
        y.square().sum().backward()
        gradients.append([leaf.grad.clone() for leaf in inputs])
    for found, expected in zip(*gradients, strict=True):
        if use_reentrant:  # its first forward has no gradients, so the cpu backend may pad or not
            torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
        else:
            assert torch.equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore")
def test_compiled_layer_equals_the_layer(backend):
    layer = make_layer(torch.float32, backend=backend, router={"top_k": 2, "capacity_factor": 0.7})
    x = make_x(dtype=torch.float32)
    compiled = torch.compile(layer)
    results = []
    for module in (layer, compiled):
        leaf = x.clone().requires_grad_()
        y, _ = module(leaf, TOKENS, KEY)
        y.square().sum().backward()
        results.append((y.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-5)


def test_autocast_keeps_the_routing_and_computes_in_bfloat16():
    layer, x = make_layer(torch.float32), make_x(dtype=torch.float32)
    exact, routing = layer(x, TOKENS, KEY)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, other = layer(x, TOKENS, KEY)
    assert torch.equal(routing.expert, other.expert)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), exact, atol=0.1, rtol=0.1)


def test_backends_that_cannot_run_are_refused(monkeypatch):
    cpu, meta = torch.device("cpu"), torch.device("meta")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match=r"backend must be auto, torch or cpu .*but is triton"):
        select_backend(BackendChoice.triton, cpu)
    with pytest.raises(ConfigError, match="backend must be auto, torch or triton on meta"):
        select_backend(BackendChoice.cpu, meta)
    assert select_backend(BackendChoice.auto, cpu).name is BackendChoice.cpu
    assert select_backend(BackendChoice.auto, cpu, dropout=0.1).name is BackendChoice.torch
    assert select_backend(BackendChoice.auto, meta).name is BackendChoice.torch


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder_routing": ChooseBy.expert}, "decoder_routing must be token"),
        ({"shared_mode": SharedMode.mixed}, "shared_mode must be add, unless shared_ffn_dim"),
        (
            {"backend": BackendChoice.cpu, "activation_dropout": 0.1},
            "backend must be auto or torch",
        ),
        ({"gate_budget": 1.5}, "gate_budget must be between 0 and 1"),
        ({"router": {"second_choice": "sampled"}}, "second_choice must be always with top_k 1"),
        ({"router": {"choice_weight": "normalised"}}, "choice_weight must be raw or auto with"),
        ({"router": {"min_capacity": 0}}, "min_capacity must be at least 1"),
        ({"router": {"gating_dropout": 1.0}}, "gating_dropout must be at least 0 and below 1"),
        ({"router": {"z_loss_weight": -1.0}}, "z_loss_weight must be 0 or above"),
        ({"router": {"balance_loss_weight": math.inf}}, "balance_loss_weight must be .* finite"),
        ({"router": {"capacity_factor": math.inf}}, "capacity_factor must be .* finite, but is"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    flat = {"moe_every": 1} | {k: v for k, v in settings.items() if k != "router"}
    with pytest.raises(ConfigError, match=message):
        build_config(TransformerConfig, flat | settings.get("router", {}))
