"""A translation has the same bits whatever is translated beside it (docs/translate.md, Speed)."""

from __future__ import annotations

import random

import pytest
import torch

from mtmoe.config import ExpertType, RouterConfig, TransformerConfig, WeightType
from mtmoe.data.batching import pad
from mtmoe.data.vocabulary import EOS
from mtmoe.inference.beam_search import search
from mtmoe.inference.hypotheses import Hypothesis, Task
from mtmoe.inference.search_config import SearchConfig
from mtmoe.inference.weights import fix_weights
from mtmoe.inference.workers import map_on_cores
from mtmoe.modules.transformer import Transformer
from tests.inference.test_beam_search import FORBIDDEN, TAG
from tests.inference.tiny_model import tiny_transformer

V = 200
LONG = 400  # tokens


def build(
    kind: WeightType = WeightType.float32, expert_kind: ExpertType | None = None
) -> Transformer:
    config = TransformerConfig(
        encoder_layers=2, decoder_layers=2, embed_dim=64, ffn_dim=96, attention_heads=2,
        max_positions=1024, router=RouterConfig(num_experts=4, top_k=2),
    )  # fmt: skip
    model = tiny_transformer(config, V, 3)
    fix_weights(model, kind, expert_kind=expert_kind)
    return model


def sentences(num: int) -> list[list[int]]:
    draw = random.Random(num)
    bodies = ([draw.randrange(TAG + 1, V) for _ in range(draw.randrange(40))] for _ in range(num))
    return [[TAG, *body, EOS] for body in bodies]


def translate(
    model: Transformer, sources: list[list[int]], config: SearchConfig, size: int, threads: int = 1
) -> list[Hypothesis]:
    """The best of each, in batches of `size`."""

    def one(batch: list[list[int]], _: object) -> list[Hypothesis]:
        start = torch.full((len(batch),), TAG)
        return [found[0] for found in search(model, Task(pad(batch), start, FORBIDDEN), config)]

    batches = [sources[n : n + size] for n in range(0, len(sources), size)]
    return [found for batch in map_on_cores(one, batches, threads) for found in batch]


def check(model: Transformer, num: int, config: SearchConfig) -> None:
    sources = sentences(num)
    alone = translate(model, sources, config, 1)
    assert len({tuple(found.ids) for found in alone}) > num / 2  # else nothing would show
    assert translate(model, sources, config, 7, threads=2) == alone
    assert translate(model, sources, config, 64) == alone
    order = random.Random(1).sample(range(num), num)
    shuffled = translate(model, [sources[n] for n in order], config, 64, threads=2)
    assert shuffled == [alone[n] for n in order]
    long = [TAG, *(sentences(LONG)[0] * LONG)[: LONG - 2], EOS]
    beside = translate(
        model, [s for n in range(0, num, 31) for s in [long, *sources[n : n + 31]]], config, 32
    )
    assert [found for n, found in enumerate(beside) if n % 32] == alone


@pytest.mark.parametrize("kind", list(WeightType))
@pytest.mark.parametrize("beam", [1, 4])
def test_some_sentences_in_any_company(beam: int, kind: WeightType) -> None:
    num = 40 if kind is WeightType.float32 else 16
    check(build(kind), num, SearchConfig(beam, max_length=8))


@pytest.mark.parametrize("beam", [1, 4])
def test_experts_in_four_bits_in_any_company(beam: int) -> None:
    check(build(expert_kind=ExpertType.int4), 40, SearchConfig(beam, max_length=8))


@pytest.mark.long
@pytest.mark.parametrize("beam", [1, 4])
def test_a_thousand_sentences_in_any_company(beam: int) -> None:
    check(build(), 1000, SearchConfig(beam))
