"""Our search beside fairseq's SequenceGenerator, on the same network."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtmoe.data.batching import pad
from mtmoe.data.vocabulary import PAD
from mtmoe.inference.hypotheses import Hypothesis
from mtmoe.modules.transformer import Memory, Transformer
from tests.inference.test_beam_search import (
    FORBIDDEN,
    TAG,
    assert_same,
    build,
    rules,
    search,
    sentences,
)

VOCAB_SIZE = 24


class Encoder(nn.Module):
    def __init__(self, network: Transformer) -> None:
        super().__init__()
        self.network = network

    def forward_torchscript(self, net_input: dict[str, Tensor]) -> Memory:
        return self.network.encode(net_input["src_tokens"])

    def reorder_encoder_out(self, memory: Memory, rows: Tensor) -> Memory:
        return memory.select(rows)


class Decoder(nn.Module):
    def __init__(self, network: Transformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor, encoder_out: Memory) -> tuple[Tensor, None]:
        return self.network.project(self.network.decode(tokens, encoder_out).states), None


class Model(nn.Module):
    """What SequenceGenerator asks of a model, without a cache."""

    def __init__(self, network: Transformer) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(network), Decoder(network)
        self.limit = network.config.max_positions

    def max_decoder_positions(self) -> int:
        return self.limit

    def get_normalized_probs(self, output: tuple[Tensor, None], **_: Any) -> Tensor:
        return output[0].log_softmax(-1).index_fill(-1, FORBIDDEN, float("-inf"))


def fairseq_search(
    network: Transformer, source: list[int], beam: int, penalty: float
) -> Hypothesis:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what fairseq's imports and indexing warn of
        from fairseq.data import Dictionary
        from fairseq.sequence_generator import SequenceGenerator

        symbols = Dictionary()
        for n in range(len(symbols), VOCAB_SIZE):
            symbols.add_symbol(str(n))
        generator = SequenceGenerator(
            [Model(network)],
            symbols,
            beam_size=beam,
            max_len_a=2,
            max_len_b=20,
            len_penalty=penalty,
        )
        sample = {"net_input": {"src_tokens": torch.tensor([source])}}
        best = generator.generate([], sample, bos_token=TAG)[0][0]
    return Hypothesis(
        best["tokens"].tolist()[:-1], float(best["score"]), best["positional_scores"].tolist()
    )


@pytest.mark.parametrize("seed", [3, 4, 5])
@pytest.mark.parametrize(("beam", "penalty"), [(1, 1.0), (4, 1.0), (5, 0.5)])
def test_search_finds_what_fairseq_finds(seed: int, beam: int, penalty: float) -> None:
    network = build(VOCAB_SIZE, seed=seed)
    expected = [fairseq_search(network, s, beam, penalty) for s in sentences(VOCAB_SIZE)]
    assert PAD not in {i for h in expected for i in h.ids}
    assert any(len(h.ids) < 20 for h in expected)  # some end by themselves
    assert_same(search(network, pad(sentences(VOCAB_SIZE)), rules(beam, penalty)), expected)
