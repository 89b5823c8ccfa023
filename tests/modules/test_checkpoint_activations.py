"""A network that computes its layers again has the same gradients, bit by bit, in less memory."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo  # checkpointing imports it, which takes seconds: before ranks fork
import torch.distributed as dist

from mtmoe.config import (
    Activation,
    BackendChoice,
    CheckpointActivations,
    ChooseBy,
    DropPolicy,
    MeshConfig,
    RouterConfig,
    SecondChoice,
    SharedMode,
    TransformerConfig,
    Zero,
)
from mtmoe.modules import experts
from mtmoe.modules import router as router_module
from mtmoe.modules.moe_layer import MoELayer
from mtmoe.modules.transformer import Transformer
from mtmoe.ops.routing import RouterKey
from mtmoe.parallel.collectives import count_traffic
from mtmoe.parallel.mesh import make_mesh
from tests.ranks import run_ranks
from tests.tensor_memory import TensorMemory

NONE, FULL, KEEP = CheckpointActivations
PAD, V = 1, 40
NOISY = {"dropout": 0.1, "attention_dropout": 0.1, "router": {"jitter": 0.2}}
CASES = {
    "dropless": NOISY,
    "RTS with capacity": NOISY | {"router": {"capacity_factor": 0.7, "top_k": 2, "jitter": 0.2}},
    "by score": {"router": {"capacity_factor": 0.5, "drop_policy": DropPolicy.score}},
    "sampled second choice": {
        "router": {"top_k": 2, "second_choice": SecondChoice.sampled, "capacity_factor": 1.0}
    },
    "definition": {"backend": BackendChoice.torch, "activation_dropout": 0.2},
    "expert choice": NOISY | {"encoder_routing": ChooseBy.expert},
    "masked, skipped": {"router": {"expert_output_masking": 0.3, "gating_dropout": 0.5}},
    "conditional": {
        "activation": Activation.swiglu,
        "shared_ffn_dim": 8,
        "shared_mode": SharedMode.conditional,
        "gate_dropout": 0.3,
    },
}


def build(mode, settings, layers=2):
    router = RouterConfig(num_experts=4, **settings.get("router", {}))
    rest = {k: v for k, v in settings.items() if k != "router"}
    config = TransformerConfig(
        layers, layers, 16, 24, attention_heads=2, moe_every=1, router=router,
        checkpoint_activations=mode, **rest,
    )  # fmt: skip
    return Transformer(config, V, PAD, seed=1).train()


def batch_of(number, width=9):
    """Sentences of different lengths."""
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(4, V, (5, width), generator=generator)
    ids[torch.arange(width) >= torch.arange(width, width - 5, -1).unsqueeze(1)] = PAD
    return ids


def loss_of(model, batch, key):
    output = model(batch, batch, key)
    scale = torch.linspace(-1, 1, output.states.numel()).view(output.states.shape)
    losses = (r.balance_loss + r.z_loss + r.gate_loss for r in output.routings)
    return (output.states * scale).sum() + sum(losses)


def gradients(model, batches=1):
    """Of batches whose forwards all run before their backwards."""
    torch.manual_seed(7)
    losses = [loss_of(model, batch_of(n, 9 - n), RouterKey.of(1, 2, n)) for n in range(batches)]
    torch.rand(100)  # the global generator moves on before the backward pass
    for loss in losses:
        loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


@pytest.mark.parametrize("mode", [FULL, KEEP])
@pytest.mark.parametrize("case", list(CASES))
def test_gradients_are_bit_equal(case, mode):
    assert_equal(gradients(build(mode, CASES[case])), gradients(build(NONE, CASES[case])))


@pytest.mark.parametrize("mode", [FULL, KEEP])
def test_gradients_are_bit_equal_where_experts_and_shared_network_are_one_step(mode, monkeypatch):
    monkeypatch.setattr(experts, "MAX_MEAN_ROWS", 0)
    settings = {"shared_ffn_dim": 8, "router": {"top_k": 1, "capacity_factor": 0.7}}
    assert_equal(gradients(build(mode, settings), 2), gradients(build(NONE, settings), 2))


@pytest.mark.parametrize("mode", [FULL, KEEP])
def test_gradients_are_bit_equal_in_bfloat16(mode):
    found = []
    for m in (NONE, mode):
        model = build(m, NOISY)
        torch.manual_seed(7)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, batch_of(0), RouterKey.of(1, 2, 0))
        loss.backward()  # outside, as fairseq has it
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert_equal(*found)


@pytest.mark.parametrize("mode", [FULL, KEEP])
def test_many_recomputation_that_would_choose_otherwise_is_told_what_was_chosen(mode, monkeypatch):
    """As where a GPU adds up in another order, and two probabilities are nearly equal."""
    settings = {"router": {"capacity_factor": 0.7, "top_k": 2, "drop_policy": DropPolicy.score}}
    expected = gradients(build(NONE, settings))
    calls = []
    choose = router_module.choose_experts

    def choose_otherwise_later(probs, top_k, bias=None):
        calls.append(1)
        return choose(probs * (1 if len(calls) <= 4 else -1), top_k, bias)

    monkeypatch.setattr(router_module, "choose_experts", choose_otherwise_later)
    found = gradients(build(mode, settings))
    assert len(calls) == 8, "each of the four layers twice"
    assert_equal(found, expected)


@pytest.mark.parametrize("mode", [FULL, KEEP])
def test_fairseq_each_batch_is_recomputed_with_its_own_padding(mode):
    """A padding mask kept on a module would be the last batch's."""
    assert_equal(gradients(build(mode, NOISY), 3), gradients(build(NONE, NOISY), 3))


@pytest.mark.parametrize("mode", [FULL, KEEP])
def test_fairseq_router_losses_alone_reach_the_weights(mode):
    """A loss kept on a module by a first pass without graph would have no gradient."""
    found = []
    for m in (NONE, mode):
        model = build(m, {"dropout": 0.0})
        output = model(batch_of(0), batch_of(0), RouterKey.of(1, 2, 0))
        sum(r.balance_loss for r in output.routings).backward()
        routers = [p.grad for n, p in model.named_parameters() if n.endswith("router.weight")]
        assert all(g.abs().sum() > 0 for g in routers)
        found.append(routers)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def activation_bytes(mode, layers):
    """Bytes that the second of two steps holds between forward and backward, and its peak."""
    model, batch = build(mode, NOISY, layers), torch.randint(4, V, (16, 24))
    for _ in range(2):
        model.zero_grad()
        with TensorMemory(*model.parameters()) as memory:
            loss = loss_of(model, batch, RouterKey.of(1, 2, 0))
            held = memory.live
            loss.backward()
    return held, memory.peak


def test_layers_keep_their_input_only():
    input_bytes = 16 * 24 * 16 * 4
    held = {(m, n): activation_bytes(m, n)[0] for m in CheckpointActivations for n in (1, 4)}
    for mode in (FULL, KEEP):
        a_layer = (held[mode, 4] - held[mode, 1]) / 6
        assert a_layer < 2.5 * input_bytes, "input, decisions and dropout's state"
        assert a_layer < 0.1 * (held[NONE, 4] - held[NONE, 1]) / 6
    assert activation_bytes(FULL, 4)[1] < 0.4 * activation_bytes(NONE, 4)[1]


def test_evaluation_computes_nothing_twice(monkeypatch):
    model = build(FULL, {}).eval()
    calls = []
    choose = router_module.choose_experts
    monkeypatch.setattr(
        router_module, "choose_experts", lambda *args: (calls.append(1), choose(*args))[1]
    )
    loss_of(model, batch_of(0), None).backward()
    assert len(calls) == 4


def share_experts_out(config, mesh):
    with torch.device("meta"):
        model = Transformer(config, V, PAD, mesh=mesh)
    model.materialise(torch.device("cpu"), 1, Zero.none)
    return model.train()


def check_traffic(settings):
    mesh = make_mesh(MeshConfig(expert_parallel_size=dist.get_world_size()))
    axis = mesh.expert
    calls, sent, found = {}, {}, {}
    for mode in CheckpointActivations:
        model = share_experts_out(build(mode, settings).config, mesh)
        torch.manual_seed(axis.rank)
        with count_traffic() as traffic:
            loss_of(model, batch_of(axis.rank), RouterKey.of(1, 2, axis.rank)).backward()
        num_layers = sum(isinstance(m, MoELayer) for m in model.modules())
        calls[mode] = {k: n / num_layers for k, n in traffic.calls.items()}
        sent[mode] = traffic.sent_bytes["all_to_all"]
        found[mode] = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert calls[NONE] == {"all_to_all": 4, "plan": 1}
    assert calls[FULL] == {"all_to_all": 6, "plan": 2}
    assert calls[KEEP] == {"all_to_all": 4, "plan": 1}
    assert sent[KEEP] == sent[NONE] < sent[FULL]
    assert_equal(found[FULL], found[NONE])
    assert_equal(found[KEEP], found[NONE])


@pytest.mark.parametrize("case", ["dropless", "RTS with capacity", "expert choice"])
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_all_to_alls_of_a_layer_and_step(num_ranks, case):
    run_ranks(check_traffic, num_ranks, CASES[case])
