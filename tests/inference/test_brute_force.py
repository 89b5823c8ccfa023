"""Searches over a tiny vocabulary beside all outputs that their settings allow."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from mtmoe.data.batching import pad
from mtmoe.data.vocabulary import EOS
from mtmoe.inference import beam_search
from mtmoe.inference.search_config import SearchConfig
from mtmoe.modules.transformer import Transformer
from tests.inference.test_beam_search import FORBIDDEN, TAG, build, log_probs, task

PIECES = (5, 6, 7)
MAX_PIECES = 4
SOURCES = ([TAG, 6, EOS], [TAG, 5, 7, 7, EOS], [TAG, EOS])
ALL = 120  # outputs of 1 to 4 of the 3 pieces


def repeats(ids: tuple[int, ...], size: int) -> bool:
    grams = [ids[n : n + size] for n in range(len(ids) - size + 1)]
    return size > 0 and len(set(grams)) < len(grams)


def allowed_outputs(config: SearchConfig, prefix: tuple[int, ...]) -> list[tuple[int, ...]]:
    longest = config.max_length or MAX_PIECES
    outputs = [ids for n in range(1, longest + 1) for ids in product(PIECES, repeat=n)]
    return [
        ids
        for ids in outputs
        if len(ids) >= max(config.min_length, len(prefix))
        and ids[: len(prefix)] == prefix
        and not repeats(ids, config.no_repeat_ngram)
    ]


def ranking(
    model: Transformer, source: list[int], config: SearchConfig, prefix: tuple[int, ...]
) -> list[tuple[list[int], float]]:
    """All allowed outputs with their scores, best first; those of one length side by side."""
    found = []
    outputs = allowed_outputs(config, prefix)
    for length in sorted(set(map(len, outputs))):
        ids = torch.tensor([output for output in outputs if len(output) == length])
        with torch.inference_mode():
            target = torch.cat([torch.full((len(ids), 1), TAG), ids], 1)
            states = model(torch.tensor([source] * len(ids)), target).states
            steps = model.project(states).log_softmax(-1)  # (outputs, length + 1, V)
        wanted = torch.cat([ids, torch.full((len(ids), 1), EOS)], 1)
        totals = steps.gather(2, wanted.unsqueeze(2)).sum((1, 2))
        scores = totals / (length + 1) ** config.length_penalty
        found += list(zip(ids.tolist(), scores.tolist(), strict=True))
    return sorted(found, key=lambda item: -item[1])


@pytest.mark.parametrize(
    ("options", "prefix"),
    [
        ({}, ()),
        ({"length_penalty": 0.0}, ()),
        ({"length_penalty": 2.5}, ()),
        ({"min_length": 3, "length_penalty": 0.5}, ()),
        ({"max_length": 2}, ()),
        ({"min_length": 2, "max_length": 3, "length_penalty": 0.0}, ()),
        ({"no_repeat_ngram": 1}, ()),
        ({"no_repeat_ngram": 2, "length_penalty": 0.2}, ()),
        ({}, (7, 7)),
        ({"length_penalty": 0.0, "min_length": 3}, (6,)),
        ({"length_penalty": 1.7, "no_repeat_ngram": 2}, (5, 6, 5)),
        ({"max_length": 3}, (6, 5, 5)),
    ],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_beam_as_wide_as_all_outputs_ranks_them_all(
    options: dict[str, float], prefix: tuple[int, ...], seed: int
) -> None:
    model = build(vocab_size=8, max_positions=MAX_PIECES + 1, seed=seed)
    config = SearchConfig(beam=ALL, num_best=ALL, **options)  # type: ignore[arg-type]
    given = task(pad(SOURCES), pad([list(prefix)] * len(SOURCES)) if prefix else None)
    for source, found in zip(SOURCES, beam_search.search(model, given, config), strict=True):
        expected = ranking(model, source, config, prefix)
        assert [h.ids for h in found] == [ids for ids, _ in expected]
        scores = [score for _, score in expected]
        assert [h.score for h in found] == pytest.approx(scores, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 1.5])
@pytest.mark.parametrize(("beam", "seed"), [(1, 1), (2, 1), (2, 2), (3, 2), (5, 1)])
def test_a_narrow_beam_is_the_search_by_definition(beam: int, seed: int, penalty: float) -> None:
    model = build(vocab_size=12, max_positions=16, seed=seed)
    config = SearchConfig(beam, penalty, num_best=beam)
    sources = [[TAG, 6, 9, EOS], [TAG, 5, 7, 7, 11, 8, EOS], [TAG, EOS]]
    for source, found in zip(
        sources, beam_search.search(model, task(pad(sources)), config), strict=True
    ):
        expected = search_by_definition(model, source, config)
        assert [h.ids for h in found] == [ids for ids, _ in expected]
        assert [h.score for h in found] == pytest.approx([s for _, s in expected], rel=1e-4)


def search_by_definition(
    model: Transformer, source: list[int], config: SearchConfig
) -> list[tuple[list[int], float]]:
    """Beam search over lists, without cache or batch: each hypothesis is read again each time."""
    limit = min(2 * len(source) + 20, model.config.max_positions - 1)
    alive: list[tuple[list[int], float]] = [([], 0.0)]
    finished: list[tuple[list[int], float]] = []
    for length in range(limit + 1):
        candidates = []
        for ids, total in alive:
            last = log_probs(model, source, ids)[-1]
            allowed = [EOS] if length == limit else range(last.shape[0])
            for token in allowed:
                if token not in FORBIDDEN and (token != EOS or length > 0):
                    candidates.append(([*ids, token], total + float(last[token])))
        best = sorted(candidates, key=lambda item: -item[1])[: 2 * config.beam]
        for ids, total in best[: config.beam]:
            if ids[-1] == EOS and len(finished) < config.beam:
                finished.append((ids[:-1], total / len(ids) ** config.length_penalty))
        alive = [item for item in best if item[0][-1] != EOS][: config.beam]
        if len(finished) == config.beam:
            break
    return sorted(finished, key=lambda item: -item[1])
