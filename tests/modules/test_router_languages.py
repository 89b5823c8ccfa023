"""Routers that read languages: told by the tags, the same whatever way the model is run."""

from __future__ import annotations

import pytest
import torch

from mtmoe.config import RouterConfig, RouterInput, RouterLanguage, TransformerConfig
from mtmoe.errors import ConfigError
from mtmoe.modules.tokens import Tokens, read_languages
from mtmoe.modules.transformer import Transformer

PAD, V, LANGUAGES = 1, 30, 3  # tags: 27, 28, 29


def make_model(kind, side, num_languages=LANGUAGES):
    router = RouterConfig(num_experts=4, router_input=kind, router_language=side)
    config = TransformerConfig(
        1, 1, 16, 8, attention_heads=2, moe_every=1, dropout=0.0, router=router
    )
    return Transformer(config, V, PAD, seed=1, num_languages=num_languages).eval()


def test_languages_are_read_from_the_tags_on_either_side_of_padding():
    source = torch.tensor(
        [[27, 29, 5, 2, PAD], [PAD, PAD, 28, 27, 2], [29, 5, 6, 2, PAD], [28, PAD, PAD, PAD, PAD]]
    )
    found = read_languages(source, PAD, LANGUAGES, V)
    assert found.tolist() == [[0, 2], [1, 0], [2, 2], [1, 1]]


@pytest.mark.parametrize("kind", [RouterInput.language, RouterInput.token_and_language])
@pytest.mark.parametrize("side", list(RouterLanguage))
@torch.no_grad()
def test_decoding_with_a_cache_and_shared_memory_routes_as_one_pass(kind, side):
    model = make_model(kind, side)
    source = torch.tensor([[27, 29, 5, 2], [28, 27, 6, 2]])
    target = torch.tensor([[29, 5, 6], [29, 7, 8], [27, 9, 4], [27, 5, 5]])  # two of each
    memory, cache = model.encode(source), model.new_cache()
    steps = [model.decode(target[:, s : s + 1], memory, cache=cache).states for s in range(3)]
    whole = model(source.repeat_interleave(2, 0), target).states
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=1e-5)
    one = memory.select(torch.tensor([1]))
    torch.testing.assert_close(
        model.decode(target[2:], one).states, whole[2:], atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_another_language_goes_to_other_experts():
    model = make_model(RouterInput.language, RouterLanguage.target)
    source = torch.tensor([[27, tag, 5, 6, 7, 2] for tag in (27, 28, 29)])
    routing = model.encode(source).routings[0]
    by_sentence = routing.expert.view(3, 6)
    assert all(len(set(s.tolist())) == 1 for s in by_sentence)
    assert len(set(by_sentence[:, 0].tolist())) > 1


def test_a_vocabulary_without_tags_is_refused():
    with pytest.raises(ConfigError, match="router_input must be token for a vocabulary without"):
        make_model(RouterInput.language, RouterLanguage.both, num_languages=0)


def test_tokens_know_their_sentences():
    all_real = Tokens((2, 3)).sentence(torch.device("cpu"))
    some = Tokens.of(torch.tensor([[5, PAD, PAD], [5, 6, PAD]]), PAD)
    assert all_real.tolist() == [0, 0, 0, 1, 1, 1]
    assert some.sentence(torch.device("cpu")).tolist() == [0, 1, 1]
    x = torch.arange(6.0).view(2, 3, 1)
    assert some.gather(x).flatten().tolist() == [0, 3, 4]
    assert some.scatter(some.gather(x)).flatten().tolist() == [0, 0, 0, 3, 4, 0]
