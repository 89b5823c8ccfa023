from __future__ import annotations

import threading
from itertools import product

import pytest
import torch
from torch import Tensor

from mtmoe.config import RouterConfig, TransformerConfig
from mtmoe.data.batching import pad
from mtmoe.data.vocabulary import BOS, EOS, PAD, UNK
from mtmoe.errors import CheckpointError
from mtmoe.inference import beam_search
from mtmoe.inference.hypotheses import Hypothesis, Task
from mtmoe.inference.search_config import SearchConfig
from mtmoe.modules.transformer import Transformer
from tests.inference.tiny_model import tiny_transformer

TAG = 4
FORBIDDEN = torch.tensor([BOS, PAD, UNK, TAG])


def build(vocab_size: int = 24, max_positions: int = 32, seed: int = 1) -> Transformer:
    config = TransformerConfig(
        encoder_layers=2, decoder_layers=2, embed_dim=16, ffn_dim=32, attention_heads=2,
        max_positions=max_positions, router=RouterConfig(num_experts=4),
    )  # fmt: skip
    return tiny_transformer(config, vocab_size, seed)


def sentences(
    vocab_size: int = 24, lengths: tuple[int, ...] = (7, 2, 1, 4, 7, 3)
) -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    low, high = TAG + 1, vocab_size
    drawn = [torch.randint(low, high, (n,), generator=generator).tolist() for n in lengths]
    return [[TAG, *ids, EOS] for ids in drawn]


def task(source: Tensor, prefix: Tensor | None = None) -> Task:
    return Task(source, torch.full((source.shape[0],), TAG), FORBIDDEN, prefix)


def rules(beam: int, length_penalty: float = 1.0) -> SearchConfig:
    return SearchConfig(beam, length_penalty)


def search(
    model: Transformer, source: Tensor, config: SearchConfig, stop: threading.Event | None = None
) -> list[Hypothesis]:
    """The best hypothesis of each sentence."""
    return [found[0] for found in beam_search.search(model, task(source), config, stop)]


def log_probs(model: Transformer, source: list[int], ids: list[int]) -> Tensor:
    """(S, V): of each position of a target that begins with the tag, by one forward pass."""
    with torch.inference_mode():
        states = model(torch.tensor([source]), torch.tensor([[TAG, *ids]])).states[0]
        return model.project(states).log_softmax(-1)


def score(model: Transformer, source: list[int], ids: list[int], penalty: float) -> float:
    steps = log_probs(model, source, ids)
    total = sum(float(step[i]) for step, i in zip(steps, [*ids, EOS], strict=True))
    return total / (len(ids) + 1) ** penalty


def assert_same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [h.ids for h in found] == [h.ids for h in expected]
    assert [h.score for h in found] == pytest.approx([h.score for h in expected], rel=1e-4)


@pytest.mark.parametrize(("penalty", "seed"), [(0.0, 1), (0.6, 2), (1.0, 3), (1.5, 4)])
def test_a_beam_as_wide_as_all_outputs_finds_the_best_of_all(penalty: float, seed: int) -> None:
    model = build(vocab_size=8, max_positions=4, seed=seed)  # at most 3 pieces, of 3 kinds
    sources = [[TAG, 6, EOS], [TAG, 5, 7, EOS], [TAG, EOS]]
    outputs = [list(ids) for n in (1, 2, 3) for ids in product((5, 6, 7), repeat=n)]
    found = search(model, pad(sources), rules(len(outputs), penalty))
    for source, hypothesis in zip(sources, found, strict=True):
        scores = [score(model, source, ids, penalty) for ids in outputs]
        assert hypothesis.ids == outputs[scores.index(max(scores))]
        assert hypothesis.score == pytest.approx(max(scores), rel=1e-4)


def test_a_beam_of_one_takes_the_likeliest_symbol_each_time() -> None:
    model = build()
    for source, found in zip(sentences(), search(model, pad(sentences()), rules(1)), strict=True):
        ids: list[int] = []
        limit = min(31, 2 * len(source) + 20)
        while len(ids) < limit:
            last = log_probs(model, source, ids)[-1].index_fill(0, FORBIDDEN, float("-inf"))
            last[EOS] += 0.0 if ids else float("-inf")
            if int(last.argmax()) == EOS:
                break
            ids.append(int(last.argmax()))
        assert found.ids == ids


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_the_score_is_that_of_the_output_by_definition(penalty: float) -> None:
    model = build()
    for source, found in zip(
        sentences(), search(model, pad(sentences()), rules(4, penalty)), strict=True
    ):
        assert found.score == pytest.approx(score(model, source, found.ids, penalty), rel=1e-4)


@pytest.mark.parametrize("seed", [3, 4, 5])
@pytest.mark.parametrize("beam", [1, 4])
def test_a_result_does_not_depend_on_the_batch(beam: int, seed: int) -> None:
    model = build(seed=seed)
    together = search(model, pad(sentences()), rules(beam))
    alone = [search(model, pad([source]), rules(beam))[0] for source in sentences()]
    backwards = search(model, pad(sentences()[::-1]), rules(beam))[::-1]
    assert_same(together, alone)
    assert_same(together, backwards)


def test_output_is_text_within_the_sentence_s_own_limit() -> None:
    model = build(max_positions=64)
    model.embedding.weight.data[EOS] *= 0.01  # ends are rare: outputs reach their limits
    sources = sentences(lengths=(30, 1, 8))
    found = search(model, pad(sources), rules(3))
    limits = [min(63, 2 * len(source) + 20) for source in sources]
    assert all(len(h.ids) <= limit for h, limit in zip(found, limits, strict=True))
    assert any(len(h.ids) == limit for h, limit in zip(found, limits, strict=True))
    assert all(h.ids and min(h.ids) > TAG for h in found)


def test_exact_ties_go_the_same_way_in_any_batch() -> None:
    model = build()
    model.embedding.weight.data.zero_()  # all symbols are equally likely everywhere
    first = search(model, pad(sentences()[:1]), rules(3))
    assert_same(search(model, pad(sentences()[:1] * 3), rules(3)), first * 3)


def test_nothing_is_searched_for_no_sentences() -> None:
    assert search(build(), torch.empty(0, 3, dtype=torch.int64), rules(2)) == []


def test_weights_that_are_no_numbers_are_told() -> None:
    model = build()
    model.decoder_norm.weight.data.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="must give probabilities"):
        search(model, pad(sentences()), rules(2))


def test_a_search_that_is_stopped_gives_nothing() -> None:
    stop = threading.Event()
    stop.set()
    assert search(build(), pad(sentences()), rules(2), stop) == []
