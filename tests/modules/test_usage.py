"""Counts of first choices, and the importance made of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mtmoe.config import RouterConfig, TransformerConfig
from mtmoe.data.vocabulary import PAD
from mtmoe.modules.router import Routing
from mtmoe.modules.transformer import Transformer
from mtmoe.modules.usage import ExpertUse, measure_use

V = 20


def make_routing(expert: list[list[int]], probs: list[list[float]]) -> Routing:
    chosen = torch.tensor(expert)
    shares = torch.ones(chosen.shape)
    return Routing(chosen, torch.zeros_like(chosen), shares, torch.tensor(probs), torch.tensor(0.0))


def make_model(top_k: int = 1, moe_every: int = 2) -> Transformer:
    config = TransformerConfig(
        encoder_layers=2,
        decoder_layers=4,
        embed_dim=16,
        ffn_dim=8,
        attention_heads=2,
        moe_every=moe_every,
        router=RouterConfig(num_experts=3, top_k=top_k, jitter=0.5, capacity_factor=0.1),
    )
    return Transformer(config, V, PAD, seed=1)


def make_batch(seed: int, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    ids = torch.randint(4, V, (2, len(lengths), max(lengths)), generator=torch.manual_seed(seed))
    for row, length in enumerate(lengths):
        ids[:, row, length:] = PAD
    return ids[0], ids[1]


def test_use_counts_first_choices_only() -> None:
    routing = make_routing(
        [[0, 1], [2, 0], [0, 2]], [[0.6, 0.3, 0.1], [0.2, 0.1, 0.7], [0.8, 0, 0.2]]
    )
    use = ExpertUse.of(["encoder.1"], [routing])
    assert use.tokens.tolist() == [[2, 0, 1]]
    assert use.choices.tolist() == [[3, 1, 2]]
    assert_close(use.load().float(), torch.tensor([[3 / 6, 1 / 6, 2 / 6]]))
    assert_close(use.probability.float(), torch.tensor([[1.4, 0.0, 0.7]]))
    assert_close(use.share().float(), torch.tensor([[2 / 3, 0.0, 1 / 3]]))


def test_importance_is_share_times_exp_of_mean_probability() -> None:
    tokens = torch.tensor([[3, 0, 1]])
    probability = torch.tensor([[1.8, 0.0, 0.9]]).double()
    use = ExpertUse(("encoder.1",), (3,), tokens, probability, tokens)
    expected = [0.75 * math.exp(0.6), 0.0, 0.25 * math.exp(0.9)]
    assert use.importance()[0].tolist() == pytest.approx(expected)


def test_use_of_no_tokens_is_zero_not_nan() -> None:
    assert ExpertUse.zero(["encoder.1"], [4]).importance().tolist() == [[0.0] * 4]
    empty = make_routing([[0]], [[1.0, 0.0]])
    empty = Routing(
        empty.expert[:0], empty.slot[:0], empty.weight[:0], empty.probs[:0], torch.tensor(0)
    )
    assert ExpertUse.of(["encoder.1"], [empty]).tokens.tolist() == [[0, 0]]


@pytest.mark.parametrize("top_k", [1, 2])
def test_measured_use_equals_a_loop_over_tokens(top_k: int) -> None:
    model = make_model(top_k).eval()
    batches = [make_batch(1, (5, 3)), make_batch(2, (4,))]
    use = measure_use(model, batches)
    assert use.layers == ("encoder.1", "decoder.1", "decoder.3")
    assert use.tokens.sum(1).tolist() == [5 + 3 + 4] * 3  # padding is not counted
    expected = torch.zeros(3, 3, dtype=torch.int64)
    for source, target in batches:
        for layer, routing in enumerate(model(source, target).routings):
            for probs in routing.probs.tolist():
                expected[layer, probs.index(max(probs))] += 1
    assert torch.equal(use.tokens, expected)


def test_use_does_not_depend_on_batching_and_adds_up() -> None:
    model = make_model()
    source, target = make_batch(3, (6, 4, 2))
    together = measure_use(model, [(source, target)])
    apart = [measure_use(model, [(source[n : n + 1], target[n : n + 1])]) for n in range(3)]
    total = apart[0] + apart[1] + apart[2]
    assert torch.equal(together.tokens, total.tokens)
    assert_close(together.probability, total.probability, rtol=1e-5, atol=1e-5)


def test_model_is_measured_in_evaluation_mode_and_left_as_it_was() -> None:
    model = make_model().train()
    batch = make_batch(4, (5,))
    first, second = (measure_use(model, [batch]) for _ in range(2))
    assert torch.equal(first.probability, second.probability)
    assert model.training
    assert model.embedding.weight.grad is None


def test_dense_model_has_no_use() -> None:
    use = measure_use(make_model(moe_every=0), [make_batch(1, (3,))])
    assert use.layers == ()
    assert use.tokens.shape[0] == 0


def test_layers_of_different_numbers_of_experts_are_filled_up_with_0() -> None:
    wide = make_routing([[0, 1], [2, 0]], [[0.6, 0.3, 0.1], [0.2, 0.1, 0.7]])
    narrow = make_routing([[0], [0]], [[1.0], [1.0]])
    use = ExpertUse.of(["encoder.1", "decoder.1"], [wide, narrow])
    assert use.sizes == (3, 1)
    assert use.tokens.tolist() == [[1, 0, 1], [2, 0, 0]]
    assert (use + ExpertUse.zero(use.layers, use.sizes)).tokens.tolist() == use.tokens.tolist()
