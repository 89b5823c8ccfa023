"""The loss against its definition, and what the log sums up."""

from __future__ import annotations

import types

import pytest
import torch

from mtmoe.config import Autocast, CriterionConfig, RouterConfig, TransformerConfig
from mtmoe.criterions.moe_cross_entropy import MoeCrossEntropy
from mtmoe.models.moe_transformer import MoeTransformer
from mtmoe.modules.transformer import Transformer

PAD, V = 1, 30
TARGET = torch.tensor([[5, 6, 7, 2], [8, 2, PAD, PAD]])


def make_model(balance_loss_weight=0.0):
    router = RouterConfig(num_experts=4, jitter=0.0, balance_loss_weight=balance_loss_weight)
    config = TransformerConfig(1, 1, 16, 16, 2, moe_every=1, dropout=0.0, router=router)
    return MoeTransformer(Transformer(config, V, PAD, seed=1), torch.zeros(32))


def make_criterion(**settings):
    sentence_avg = settings.pop("sentence_avg", False)
    task = types.SimpleNamespace(streams=["aa-bb", "bb-aa"], target_dictionary=None)
    return MoeCrossEntropy(task, CriterionConfig(**settings), sentence_avg)


def make_sample():
    previous = TARGET.roll(1, 1).masked_fill(TARGET.roll(1, 1) == 2, PAD)
    previous[:, 0] = 4
    inputs = {"src_tokens": torch.tensor([[4, 9, 2], [4, 2, PAD]]), "src_lengths": None}
    return {
        "net_input": inputs | {"prev_output_tokens": previous},
        "target": TARGET,
        "ntokens": 6,
        "direction": torch.tensor([0, 1]),
    }


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_loss_equals_a_loop_over_real_tokens(epsilon):
    model, sample = make_model().eval(), make_sample()
    loss, size, log = make_criterion(label_smoothing=epsilon)(model, sample)
    logits, _ = model(**sample["net_input"])
    nll = total = 0.0
    for row, sentence in enumerate(TARGET.tolist()):
        for column, token in enumerate(sentence):
            if token == PAD:
                continue
            log_probs = logits[row, column].log_softmax(0)
            others = epsilon / (V - 1)
            wrong = log_probs.sum() - log_probs[token]
            nll -= log_probs[token]
            total -= (1 - epsilon) * log_probs[token] + others * wrong
    torch.testing.assert_close(loss, total)
    torch.testing.assert_close(log["nll_loss"], nll.detach())
    assert size == 6


def test_router_loss_is_scaled_with_what_fairseq_divides_by():
    sample = make_sample()
    weighted = make_model(balance_loss_weight=0.5).eval()
    loss, size, log = make_criterion()(weighted, sample)
    plain, _, _ = make_criterion()(make_model().eval(), sample)
    _, extra = weighted(**sample["net_input"])
    expected = 0.5 * sum(r.balance_loss for r in extra["routings"])
    torch.testing.assert_close((loss - plain) / size, expected)
    torch.testing.assert_close(log["router_loss"] / size, expected.detach())


def test_sentence_average_divides_by_sentences():
    _, size, _ = make_criterion(sentence_avg=True)(make_model().eval(), make_sample())
    assert size == 2


def test_log_sums_real_tokens_by_layer_and_direction():
    _, _, log = make_criterion()(make_model().eval(), make_sample())
    assert log["moe encoder.0 tokens"].sum() == 5
    assert log["moe decoder.0 tokens"].sum() == 6
    assert log["moe decoder.0 dropped"] == 0
    assert 0 < log["moe encoder.0 entropy"] <= 5 * torch.tensor(4.0).log() + 1e-5
    assert [log["tokens aa-bb"], log["tokens bb-aa"]] == [4, 2]
    torch.testing.assert_close(log["nll aa-bb"] + log["nll bb-aa"], log["nll_loss"])


def test_keys_do_not_depend_on_the_batch():
    model, criterion, sample = make_model().eval(), make_criterion(), make_sample()
    one = sample | {"direction": torch.tensor([1, 1])}
    assert criterion(model, sample)[2].keys() == criterion(model, one)[2].keys()


def test_autocast_changes_precision_but_not_the_loss_much():
    model, sample = make_model().eval(), make_sample()
    exact, _, _ = make_criterion()(model, sample)
    mixed, _, _ = make_criterion(autocast=Autocast.bfloat16)(model, sample)
    assert mixed.dtype == torch.float32
    assert exact != mixed
    torch.testing.assert_close(mixed, exact, rtol=0.02, atol=0)
