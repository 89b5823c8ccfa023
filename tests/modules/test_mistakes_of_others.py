"""Mistakes of other MoE implementations in one process; a test names where it was seen."""

from __future__ import annotations

import torch

from mtmoe.config import DropPolicy, RouterConfig, TransformerConfig
from mtmoe.modules.initialise import initialise
from mtmoe.modules.moe_layer import MoELayer
from mtmoe.modules.router import Router
from mtmoe.modules.tokens import Tokens
from mtmoe.modules.transformer import Transformer
from mtmoe.ops.routing import RouterKey, layer_generator

D, PAD, V = 16, 1, 30


def make_router(**settings):
    router = Router(RouterConfig(**({"num_experts": 4} | settings)), D)
    torch.nn.init.normal_(router.weight, generator=torch.Generator().manual_seed(0))
    return router


def make_x(rows=64):
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(1))


def generator(seed=1):
    return layer_generator(seed, 0, torch.device("cpu"))


def make_model(**router):
    config = TransformerConfig(
        1, 1, D, 8, attention_heads=2, moe_every=1, dropout=0.0,
        router=RouterConfig(num_experts=4, **router),
    )  # fmt: skip
    return Transformer(config, V, PAD, seed=1)


def test_deepspeed_random_token_selection_is_off_in_evaluation():
    router = make_router(capacity_factor=1.0, eval_capacity_factor=0.5).eval()
    first, second = router(make_x(), Tokens((1, 64))), router(make_x(), Tokens((1, 64)))
    assert torch.equal(first.slot, second.slot)
    kept = (first.slot >= 0).flatten().nonzero().flatten()
    queue = [first.expert[t, 0].item() for t in range(64)]
    for t in kept.tolist():  # what is kept came before what the same expert turned away
        later = [u for u in range(t) if queue[u] == queue[t] and first.slot[u, 0] < 0]
        assert not later


def test_deepspeed_without_random_selection_tokens_are_kept_in_order_of_position():
    router = make_router(capacity_factor=0.5, drop_policy=DropPolicy.order, jitter=0.0)
    routing = router(make_x(), Tokens((1, 64)), generator())
    for e in range(4):
        slots = routing.slot[routing.expert[:, 0] == e, 0].tolist()
        kept = min(len(slots), 8)
        assert slots == [*range(kept), *[-1] * (len(slots) - kept)]


def test_deepspeed_local_experts_do_not_start_alike():
    layer = MoELayer(TransformerConfig(embed_dim=D, ffn_dim=8, attention_heads=2), 0)
    initialise(layer, 1)
    for w in (layer.experts.w_in, layer.experts.w_out):
        assert len({tuple(expert.flatten().tolist()) for expert in w}) == 8


def test_deepspeed_noise_changes_neither_the_input_nor_evaluation():
    router, x = make_router(jitter=0.3, top_k=2), make_x()
    before = x.clone()
    router(x, Tokens((1, 64)), generator())
    assert torch.equal(x, before)
    router.eval()
    plain = make_router(jitter=0.0, top_k=2).eval()
    args = (x, Tokens((1, 64)))
    assert torch.equal(router(*args).probs, plain(*args).probs)


def test_deepspeed_a_second_choice_of_negative_score_beats_no_score():
    router = make_router(top_k=2)
    x = torch.zeros(1, D)
    x[0, 0] = 1.0
    with torch.no_grad():
        router.weight.zero_()
        router.weight[:, 0] = torch.tensor([-1.0, -5.0, -2.0, -9.0])
    assert router.eval()(x, Tokens((1, 1))).expert.tolist() == [[0, 2]]


def test_deepspeed_fairseq_hf_megatron_padding_counts_in_no_loss_and_no_capacity():
    model = make_model(capacity_factor=1.0, z_loss_weight=1.0, jitter=0.0).train()
    source = torch.randint(4, V, (3, 6), generator=torch.Generator().manual_seed(0))
    source[1, 3:] = PAD
    wide = torch.cat([source, torch.full((3, 20), PAD)], 1)
    target = source.clone()
    key = RouterKey(1, 1)
    for a, b in zip(
        model(source, target, key).routings, model(wide, target, key).routings, strict=True
    ):
        assert torch.equal(a.slot, b.slot)
        torch.testing.assert_close(a.balance_loss, b.balance_loss)
        torch.testing.assert_close(a.z_loss, b.z_loss)


def test_many_recomputation_draws_the_same_numbers_and_routes_the_same():
    model = make_model(capacity_factor=0.5, jitter=0.2).train()
    source = torch.randint(4, V, (3, 6), generator=torch.Generator().manual_seed(0))
    key = RouterKey(1, 7)
    first = model(source, source, key)
    torch.rand(100)  # the global generator has moved on
    again = model(source, source, key)
    assert torch.equal(first.states, again.states)


def test_hf_nllb_moe_evaluation_leaves_the_capacity_of_training_alone():
    router = make_router(capacity_factor=0.5, jitter=0.0)
    args = (make_x(), Tokens((1, 64)))
    before = router(*args, generator()).slot
    assert (router.eval()(*args).slot >= 0).all()
    assert torch.equal(router.train()(*args, generator()).slot, before)


def test_fairseq_hf_a_sentence_does_not_depend_on_its_batch():
    model = make_model(top_k=2, capacity_factor=0.5).eval()
    source = torch.randint(4, V, (9, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = model(source, source).states
        alone = torch.cat([model(s[None], s[None]).states for s in source])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
