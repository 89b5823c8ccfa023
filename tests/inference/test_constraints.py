"""Lengths, prefixes, repetitions, n-best lists, scores, and sampling, by definition."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from mtmoe.data.batching import pad
from mtmoe.data.vocabulary import EOS
from mtmoe.inference import beam_search
from mtmoe.inference.constraints import forbid_repetition
from mtmoe.inference.sampling import draw, sample
from mtmoe.inference.scoring import score_targets
from mtmoe.inference.search_config import SearchConfig
from tests.inference.test_beam_search import build, log_probs, score, sentences, task


def test_an_n_best_list_is_the_ranking_of_all_outputs() -> None:
    model = build(vocab_size=8, max_positions=4)  # at most 3 pieces, of 3 kinds
    outputs = [list(ids) for n in (1, 2, 3) for ids in product((5, 6, 7), repeat=n)]
    source = [4, 6, 5, EOS]
    config = SearchConfig(beam=len(outputs), num_best=5)
    found = beam_search.search(model, task(pad([source])), config)[0]
    ranked = sorted(outputs, key=lambda ids: -score(model, source, ids, 1.0))
    assert [h.ids for h in found] == ranked[:5]


@pytest.mark.parametrize("source", sentences())
def test_the_scores_of_pieces_are_the_models(source: list[int]) -> None:
    model = build()
    for h in beam_search.search(model, task(pad([source])), SearchConfig(num_best=4))[0]:
        steps = log_probs(model, source, h.ids)
        wanted = [float(step[i]) for step, i in zip(steps, [*h.ids, EOS], strict=True)]
        assert h.log_probs == pytest.approx(wanted, abs=1e-4)
        assert h.score == pytest.approx(sum(wanted) / len(wanted), abs=1e-5)


def test_given_translations_have_the_scores_that_the_search_gave_them() -> None:
    model, given = build(), task(pad(sentences()))
    found = [h[0] for h in beam_search.search(model, given, SearchConfig(length_penalty=0.7))]
    scored = score_targets(model, given, [h.ids for h in found], 0.7)
    assert [h.score for h in scored] == pytest.approx([h.score for h in found], abs=1e-5)


@pytest.mark.parametrize("beam", [1, 3])
def test_lengths_are_kept(beam: int) -> None:
    model, given = build(), task(pad(sentences()))
    config = SearchConfig(beam, num_best=beam, min_length=4, max_length=6)
    lengths = {len(h.ids) for row in beam_search.search(model, given, config) for h in row}
    assert lengths <= {4, 5, 6}
    fixed = SearchConfig(beam, min_length=5, max_length=5)
    assert {len(row[0].ids) for row in beam_search.search(model, given, fixed)} == {5}


@pytest.mark.parametrize("beam", [1, 3])
def test_outputs_begin_with_their_own_prefix_and_go_on_as_the_model_wants(beam: int) -> None:
    model, prefixes = build(), [[7, 9], [], [5], [20, 20, 20], [6], [8, 8]]
    given = task(pad(sentences()), pad(prefixes))
    found = beam_search.search(model, given, SearchConfig(beam))
    free = beam_search.search(model, task(pad(sentences())), SearchConfig(beam))
    for prefix, row in zip(prefixes, found, strict=True):
        assert row[0].ids[: len(prefix)] == prefix
    assert found[1][0].ids == free[1][0].ids
    again = task(pad(sentences()), pad([row[0].ids for row in free]))
    for longer, row in zip(beam_search.search(model, again, SearchConfig(1)), free, strict=True):
        assert longer[0].ids[: len(row[0].ids)] == row[0].ids


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_comes_twice(size: int) -> None:
    model, given = build(seed=3), task(pad(sentences()))
    plain = beam_search.search(model, given, SearchConfig(3, min_length=15))
    found = beam_search.search(model, given, SearchConfig(3, min_length=15, no_repeat_ngram=size))
    assert any(repeats(row[0].ids, size) for row in plain)
    assert not any(repeats(row[0].ids, size) for row in found)


def repeats(ids: list[int], size: int) -> bool:
    grams = [tuple(ids[n : n + size]) for n in range(len(ids) - size + 1)]
    return len(set(grams)) < len(grams)


def test_what_would_repeat_is_forbidden_by_definition() -> None:
    tokens = torch.randint(0, 3, (4, 2, 9), generator=torch.Generator().manual_seed(1))
    scores = torch.zeros(4, 2, 3)
    forbid_repetition(scores, tokens, 3)
    for b, k, token in product(range(4), range(2), range(3)):
        before = tokens[b, k].tolist()
        seen = [before[n : n + 3] for n in range(7)]
        assert bool(scores[b, k, token] < 0) == ([*before[-2:], token] in seen)


def test_a_draw_has_the_probabilities_of_the_scores() -> None:
    scores = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0]).log().view(1, 1, -1)
    uniform = torch.linspace(0, 1 - 1e-6, 1000).view(1, -1)
    wide = scores.expand(1, 1000, 5)
    for options, wanted in (
        ({}, [500, 300, 150, 50, 0]),
        ({"top_k": 2}, [625, 375, 0, 0, 0]),
        ({"top_p": 0.7}, [625, 375, 0, 0, 0]),
        ({"temperature": 0.01}, [1000, 0, 0, 0, 0]),
    ):
        found = draw(wide, uniform, SearchConfig(sampling=True, **options))
        counts = found.flatten().bincount(minlength=5).tolist()
        assert counts == pytest.approx(wanted, abs=2)


def test_a_sample_depends_on_seed_and_sentence_only() -> None:
    model, config = build(), SearchConfig(3, num_best=3, sampling=True)
    together = sample(model, task(pad(sentences())), config)
    alone = [sample(model, task(pad([source])), config)[0] for source in sentences()]
    assert [[h.ids for h in row] for row in together] == [[h.ids for h in row] for row in alone]
    other = sample(model, task(pad(sentences())), SearchConfig(3, sampling=True, seed=2))
    assert [row[0].ids for row in other] != [row[0].ids for row in together]
    scored = score_targets(model, task(pad(sentences())), [r[0].ids for r in together], 1.0)
    assert [h.score for h in scored] == pytest.approx([r[0].score for r in together], abs=1e-5)


def test_a_sample_keeps_prefix_and_lengths() -> None:
    prefix = pad([[7, 9]] * 6)
    given = task(pad(sentences()), prefix)
    found = sample(build(), given, SearchConfig(2, sampling=True, min_length=5, max_length=6))
    assert all(row[0].ids[:2] == [7, 9] and len(row[0].ids) in (5, 6) for row in found)


@pytest.mark.parametrize("sampling", [False, True])
@pytest.mark.parametrize("max_length", [0, 2])
def test_a_prefix_longer_than_the_limit_comes_whole(sampling: bool, max_length: int) -> None:
    longest = 2 * len(sentences()[0]) + 20
    prefix = [7, 9] * longest
    given = task(pad(sentences()), pad([prefix] * 6))
    config = SearchConfig(2, max_length=max_length, sampling=sampling)
    find = sample if sampling else beam_search.search
    for row in find(build(max_positions=1024), given, config):
        assert row[0].ids[: len(prefix)] == prefix
