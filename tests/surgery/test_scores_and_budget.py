"""What makes an expert worth keeping, and how many stay."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.errors import ConfigError
from mtmoe.modules.usage import ExpertUse
from mtmoe.surgery.budget import keep_in_total, keep_per_layer
from mtmoe.surgery.scores import Criterion, check_scope, score_experts
from tests.inference.tiny_model import write_tiny_checkpoint

LAYERS, SIZES = ("encoder.1", "decoder.1"), (4, 4)


def make_use(encoder, decoder, confidence=0.5):
    tokens = torch.tensor([encoder, decoder])
    return ExpertUse(LAYERS, SIZES, tokens, tokens * confidence, 2 * tokens)


USES = {
    "en-de": make_use([6, 2, 0, 0], [4, 0, 0, 0]),
    "en-fr": make_use([0, 2, 0, 0], [0, 0, 3, 1]),
    "de-en": make_use([0, 0, 1, 1], [0, 5, 0, 0]),
}


@pytest.fixture
def checkpoint(tmp_path):
    return load_checkpoint(write_tiny_checkpoint(tmp_path))


def test_encoder_is_judged_by_source_and_decoder_by_target(checkpoint):
    """A pair that was never measured takes the use of its source and of its target elsewhere."""
    scores = score_experts(checkpoint, Criterion.use, USES, ["de-fr"])
    assert scores.tolist() == [[0, 0, 0.5, 0.5], [0, 0, 0.75, 0.25]]
    of_english = score_experts(checkpoint, Criterion.use, USES, ["en-de"])
    assert of_english[0].tolist() == [0.6, 0.4, 0, 0]  # all text in English counts


def test_importance_is_share_times_exp_of_confidence_and_each_direction_counts_alike(checkpoint):
    scores = score_experts(checkpoint, Criterion.importance, USES, ["en-de", "de-en"])
    expected = torch.tensor([[0.6, 0.4, 0.5, 0.5], [1.0, 1.0, 0, 0]]) / 2 * math.exp(0.5)
    assert_close(scores.float(), expected)


def test_norm_is_load_times_the_norm_of_the_weights(checkpoint):
    scores = score_experts(checkpoint, Criterion.norm, USES, ["en-de"])
    layer = "encoder.1.feed_forward.ffn.experts."
    norms = []
    for expert in range(4):
        squares = sum(
            checkpoint.weights[layer + p][expert].square().sum() for p in ("w_in", "w_out")
        )
        norms.append(squares.sqrt())
    mean = sum(norms) / 4
    assert_close(scores[0, 0].float(), 0.6 * norms[0] / mean)
    assert_close(scores[0, 1].float(), 0.4 * norms[1] / mean)


def test_random_scores_depend_on_the_seed_only(checkpoint):
    draw = [score_experts(checkpoint, Criterion.random, {}, [], seed) for seed in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])


def test_experts_that_a_layer_lacks_are_never_kept(tmp_path):
    path = write_tiny_checkpoint(tmp_path, experts_by_layer="4,2")
    scores = score_experts(load_checkpoint(path), Criterion.random, {}, [])
    assert torch.isinf(scores).tolist() == [[False] * 4, [False, False, True, True]]
    assert [len(k) for k in keep_per_layer(scores, [3, 3])] == [3, 2]


def test_a_direction_without_statistics_is_refused():
    check_scope(USES, ["de-fr", "en-en"])
    with pytest.raises(ConfigError, match="the statistics must have fr-en, or its source and its"):
        check_scope(USES, ["fr-en"])


def test_the_best_of_each_layer_stay_ties_by_number():
    scores = torch.tensor([[0.1, 0.4, 0.2, 0.4], [0.3, 0.3, 0.3, 0.1]])
    assert [k.tolist() for k in keep_per_layer(scores, [2, 3])] == [[1, 3], [0, 1, 2]]


@pytest.mark.parametrize("floor", [1, 2])
@pytest.mark.parametrize("total", range(6, 13))
def test_a_total_is_kept_exactly_by_one_threshold_above_the_floor(total, floor):
    scores = torch.rand(3, 4, generator=torch.manual_seed(total))
    kept = keep_in_total(scores, total, floor)
    assert sum(map(len, kept)) == total
    assert min(map(len, kept)) >= floor
    stays = torch.zeros_like(scores, dtype=torch.bool)
    for row, experts in zip(stays, kept, strict=True):
        row[experts] = True
    goes_best = scores.masked_fill(stays, -1).max()
    for row, score in zip(stays, scores, strict=True):
        above_floor = score[row].sort(descending=True).values[floor:]
        assert (above_floor >= goes_best).all()
