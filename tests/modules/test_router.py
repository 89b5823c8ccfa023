"""What the router promises: each method equals a loop over tokens; training, evaluation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtmoe.config import (
    ChoiceWeight,
    ChooseBy,
    DropPolicy,
    RouterConfig,
    RouterInput,
    RouterLanguage,
    SecondChoice,
)
from mtmoe.modules.router import Router, router_loss, skip_experts
from mtmoe.modules.statistics import routing_statistics
from mtmoe.modules.tokens import Tokens
from mtmoe.ops.routing import DROPPED, SKIPPED, layer_generator

D = 16


def make_router(choose_by=ChooseBy.token, num_languages=0, **settings):
    router = Router(RouterConfig(**settings), D, choose_by, num_languages)
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(router.weight, generator=generator)
    if router.language is not None:
        torch.nn.init.normal_(router.language, generator=generator)
    return router


def generator(seed=1):
    return layer_generator(seed, 0, torch.device("cpu"))


TOKENS = Tokens((4, 16))
X = torch.randn(64, D, generator=torch.Generator().manual_seed(1))


def probs_by_loop(router, x=X):
    rows = []
    for token in x:
        scores = [float((token * row).sum()) for row in router.weight.detach()]
        total = sum(math.exp(s) for s in scores)
        rows.append([math.exp(s) / total for s in scores])
    return torch.tensor(rows)


# ---- weights of choices


@pytest.mark.parametrize(
    ("top_k", "kind", "is_normalised"),
    [
        (1, ChoiceWeight.auto, False),
        (1, ChoiceWeight.raw, False),
        (2, ChoiceWeight.auto, True),
        (3, ChoiceWeight.raw, False),
        (3, ChoiceWeight.normalised, True),
    ],
)
def test_choices_and_weights_equal_a_loop_over_tokens(top_k, kind, is_normalised):
    router = make_router(num_experts=5, top_k=top_k, choice_weight=kind).eval()
    routing = router(X, TOKENS)
    for t, probs in enumerate(probs_by_loop(router).tolist()):
        best = sorted(range(5), key=lambda e: -probs[e])[:top_k]
        total = sum(probs[e] for e in best) if is_normalised else 1.0
        assert routing.expert[t].tolist() == best
        assert routing.weight[t].tolist() == pytest.approx([probs[e] / total for e in best], 1e-4)


def test_gradient_reaches_the_router_through_the_weight():
    router = make_router(num_experts=4, top_k=1)
    router(X, TOKENS, generator()).weight.sum().backward()
    assert router.weight.grad.abs().sum() > 0


def test_weights_pass_gradcheck_in_float64():
    for k in (1, 2):
        router = make_router(num_experts=4, top_k=k, z_loss_weight=1.0).double().eval()
        x = X[:6].double().requires_grad_()

        def outputs(x, w, router=router):
            routing = torch.func.functional_call(router, {"weight": w}, (x, Tokens((1, 6))))
            return routing.weight, routing.balance_loss, routing.z_loss

        assert torch.autograd.gradcheck(outputs, (x, router.weight))


# ---- training and evaluation


@pytest.mark.parametrize("policy", list(DropPolicy))
def test_evaluation_draws_nothing_and_drops_nothing(policy):
    noisy = {"jitter": 0.3, "expert_output_masking": 0.5, "drop_policy": policy}
    router = make_router(
        num_experts=4, top_k=2, capacity_factor=0.25, second_choice=SecondChoice.sampled, **noisy
    ).eval()
    first, second = router(X, TOKENS), router(X, TOKENS)  # without a generator
    assert (first.slot >= 0).all()
    assert (first.weight > 0).all()
    assert torch.equal(first.probs, second.probs)


@pytest.mark.parametrize("policy", list(DropPolicy))
def test_training_with_capacity_drops_and_is_repeatable(policy):
    router = make_router(
        num_experts=4, top_k=1, capacity_factor=0.5, drop_policy=policy, jitter=0.0
    )
    first, again, other = (router(X, TOKENS, generator(seed)) for seed in (1, 1, 2))
    assert (first.slot == DROPPED).sum() >= 32
    assert torch.equal(first.slot, again.slot)
    assert torch.equal(first.slot, other.slot) == (policy is not DropPolicy.random)


@pytest.mark.parametrize("is_training", [False, True])
def test_capacity_follows_its_mode_and_minimum(is_training):
    factors = {"capacity_factor": 0.5, "eval_capacity_factor": 1.0}
    for minimum in (1, 12):
        router = make_router(num_experts=4, min_capacity=minimum, **factors).train(is_training)
        routing = router(X, TOKENS, generator())
        kept = torch.bincount(routing.expert[routing.slot >= 0], minlength=4)
        assert kept.max() == max(minimum, 8 if is_training else 16)


def test_batch_prioritised_routing_drops_the_lowest_scores():
    router = make_router(num_experts=3, capacity_factor=0.5, drop_policy=DropPolicy.score)
    routing = router(X, TOKENS, generator())
    score = routing.probs.max(1).values
    for e in range(3):
        mine = routing.expert[:, 0] == e
        kept = score[mine & (routing.slot[:, 0] >= 0)]
        dropped = score[mine & (routing.slot[:, 0] == DROPPED)]
        if len(dropped):
            assert kept.min() >= dropped.max()


def test_jitter_multiplies_the_input_in_training_only():
    router = make_router(num_experts=4, jitter=0.1)
    clean = router.eval()(X, TOKENS).probs
    noisy = router.train()(X, TOKENS, generator()).probs
    noise = torch.rand(64, D, generator=generator())
    expected = ((X * (0.9 + 0.2 * noise)) @ router.weight.t()).softmax(-1)
    torch.testing.assert_close(noisy, expected)
    assert not torch.equal(clean, noisy)


def test_scores_are_float32_in_bfloat16_models_and_under_autocast():
    router = make_router(num_experts=4).eval()
    exact = router(X.bfloat16().float(), TOKENS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = router(X.bfloat16(), TOKENS)
    assert mixed.probs.dtype == torch.float32
    assert torch.equal(mixed.expert, exact.expert)


def test_sampled_second_choices_are_taken_as_often_as_their_weight_says():
    router = make_router(num_experts=4, top_k=2, second_choice=SecondChoice.sampled, jitter=0.0)
    x = X[:1].expand(4000, D)
    routing = router(x, Tokens((1, 4000)), generator())
    assert (routing.slot[:, 0] >= 0).all()
    share = (routing.slot[:, 1] >= 0).float().mean().item()
    assert share == pytest.approx(min(1.0, 2 * routing.weight[0, 1].item()), abs=0.03)
    assert set(routing.slot[:, 1].tolist()) <= {0, SKIPPED}
    assert routing_statistics(routing)["dropped"] == 0


def test_a_choice_that_is_not_taken_takes_no_slot():
    router = make_router(
        num_experts=4,
        top_k=2,
        second_choice=SecondChoice.sampled,
        capacity_factor=0.6,
        jitter=0.0,
        drop_policy=DropPolicy.order,
    )
    routing = router(X, TOKENS, generator())
    used, capacity = [0] * 4, math.ceil(0.6 * 2 * 64 / 4)
    for k in range(2):
        for t in range(64):
            e = int(routing.expert[t, k])
            if routing.slot[t, k] == SKIPPED:
                assert k == 1
                continue
            expected = used[e] if used[e] < capacity else DROPPED
            assert routing.slot[t, k] == expected
            used[e] += used[e] < capacity


def test_masked_outputs_are_a_share_of_choices_and_the_rest_is_scaled_up():
    settings = {"num_experts": 4, "top_k": 2, "jitter": 0.0}
    x, tokens = X.repeat(40, 1), Tokens((40, 64))
    masked = make_router(expert_output_masking=0.25, **settings)(x, tokens, generator())
    plain = make_router(**settings)(x, tokens, generator())
    is_zero = masked.weight == 0
    assert is_zero.float().mean().item() == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(masked.weight[~is_zero], plain.weight[~is_zero] / 0.75)
    assert torch.equal(masked.slot, plain.slot), "masking is not dropping"


def test_the_bias_changes_who_is_chosen_but_no_weight():
    router = make_router(num_experts=4, top_k=2, bias_update_rate=0.1).eval()
    router.choice_bias[3] = 10.0
    routing = router(X, TOKENS)
    assert (routing.expert[:, 0] == 3).all()
    chosen = routing.probs.gather(1, routing.expert)
    torch.testing.assert_close(routing.weight, chosen / chosen.sum(1, keepdim=True))


def test_gating_dropout_leaves_no_choice():
    routing = skip_experts(make_router(num_experts=4)(X, TOKENS, generator()))
    assert (routing.slot == SKIPPED).all()
    assert routing_statistics(routing)["choices"] == 0


# ---- languages


@pytest.mark.parametrize("side", list(RouterLanguage))
@pytest.mark.parametrize("kind", [RouterInput.language, RouterInput.token_and_language])
def test_a_router_that_reads_languages_equals_a_loop(side, kind):
    router = make_router(
        num_languages=3, num_experts=4, router_input=kind, router_language=side
    ).eval()
    languages = torch.tensor([[0, 1], [2, 0], [1, 1], [0, 2]])
    routing = router(X, Tokens((4, 16), languages=languages))
    columns = {"source": [0], "target": [1], "both": [0, 1]}[side.value]
    for t in range(64):
        read = X[t].clone() if kind is RouterInput.token_and_language else torch.zeros(D)
        for n, column in enumerate(columns):
            read += router.language.detach()[n, languages[t // 16, column]]
        expected = (router.weight.detach() @ read).softmax(0)
        torch.testing.assert_close(routing.probs[t], expected)
    if kind is RouterInput.language:
        assert all(len(set(s.flatten().tolist())) == 1 for s in routing.expert.view(4, 16))


# ---- expert choice


def expert_choice_by_loop(probs, lengths, per_expert):
    taken = torch.zeros_like(probs, dtype=torch.bool)
    start = 0
    for length, capacity in zip(lengths, per_expert, strict=True):
        for e in range(probs.shape[1]):
            order = sorted(range(start, start + length), key=lambda t: (-float(probs[t, e]), t))
            taken[order[:capacity], e] = True
        start += length
    return taken


@settings(deadline=None, max_examples=50)
@given(
    lengths=st.lists(st.integers(0, 7), max_size=5),
    num_experts=st.integers(1, 5),
    factor=st.sampled_from([0.0, 0.5, 2.0]),
    data=st.data(),
)
def test_expert_choice_equals_a_loop_over_sentences_and_experts(lengths, num_experts, factor, data):
    top_k = data.draw(st.integers(1, num_experts))
    router = make_router(
        ChooseBy.expert, num_experts=num_experts, top_k=top_k, capacity_factor=factor, jitter=0.0
    )
    width = max([1, *lengths])
    real = [b * width + s for b, n in enumerate(lengths) for s in range(n)]
    tokens = Tokens((len(lengths), width), real=torch.tensor(real, dtype=torch.int64))
    x = torch.randn(len(real), D, generator=torch.Generator().manual_seed(3)).round()
    routing = router(x, tokens)
    ratio = (factor or 1.0) * top_k / num_experts
    per_expert = [max(1, math.ceil(n * ratio - 1e-6)) for n in lengths]
    expected = expert_choice_by_loop(routing.probs.detach(), lengths, per_expert)
    assert torch.equal(routing.slot >= 0, expected)
    assert set(routing.slot[~expected].tolist()) <= {SKIPPED}
    assert torch.equal(routing.weight, routing.probs)
    assert torch.equal(routing.expert, torch.arange(num_experts).expand(len(real), -1))


def test_expert_choice_of_a_sentence_does_not_depend_on_the_batch():
    router = make_router(ChooseBy.expert, num_experts=4, top_k=2).eval()
    together = router(X, TOKENS)
    alone = router(X[16:32], Tokens((1, 16)))
    assert torch.equal(together.slot[16:32], alone.slot)


def test_normalised_expert_choice_weighs_a_token_to_one_or_zero():
    settings = {"num_experts": 4, "choice_weight": ChoiceWeight.normalised}
    routing = make_router(ChooseBy.expert, **settings).eval()(X, TOKENS)
    total = (routing.weight * (routing.slot >= 0)).sum(1)
    is_taken = (routing.slot >= 0).any(1)
    torch.testing.assert_close(total[is_taken], torch.ones(int(is_taken.sum())))


# ---- losses


def test_router_losses_are_weighted_by_their_settings():
    config = RouterConfig(num_experts=4, balance_loss_weight=0.5, z_loss_weight=0.25)
    router = make_router(num_experts=4, balance_loss_weight=0.5, z_loss_weight=0.25)
    routing = router(X, TOKENS, generator())
    expected = 0.5 * routing.balance_loss + 0.25 * routing.z_loss
    torch.testing.assert_close(router_loss(config, 0.0, routing), expected)
    assert routing.z_loss > 0
    assert make_router(num_experts=4)(X, TOKENS, generator()).z_loss == 0


def test_no_tokens_give_no_losses_and_no_error():
    for choose_by in ChooseBy:
        router = make_router(choose_by, num_experts=4, capacity_factor=1.0, z_loss_weight=1.0)
        routing = router(X[:0], Tokens((0, 3)), generator())
        assert routing.balance_loss == 0
        assert routing.z_loss == 0
        assert all(torch.isfinite(v.float()).all() for v in routing_statistics(routing).values())
