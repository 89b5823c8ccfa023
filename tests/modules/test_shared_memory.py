from __future__ import annotations

import torch
from torch.testing import assert_close

from mtmoe.modules.transformer import DecoderCache, Memory
from tests.inference.test_beam_search import build, pad, sentences


def test_hypotheses_of_a_sentence_may_share_its_memory() -> None:
    model, K = build(), 3
    source = pad(sentences())
    B = source.shape[0]
    target = torch.randint(5, 24, (B * K, 6), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        shared = model.encode(source)
        repeated = shared.select(torch.arange(B).repeat_interleave(K))
        assert_close(states(model, target, shared), states(model, target, repeated))


def test_a_cache_with_shared_memory_gives_what_one_pass_gives() -> None:
    model, K = build(), 3
    source = pad(sentences())
    B = source.shape[0]
    target = torch.randint(5, 24, (B * K, 6), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        memory, cache = model.encode(source), model.new_cache()
        steps = [states(model, target[:, s : s + 1], memory, cache) for s in range(6)]
        assert_close(torch.cat(steps, 1), states(model, target, memory))


def states(
    model: torch.nn.Module, target: torch.Tensor, memory: Memory, cache: DecoderCache | None = None
) -> torch.Tensor:
    result: torch.Tensor = model.decode(target, memory, cache=cache).states  # type: ignore[operator]
    return result
