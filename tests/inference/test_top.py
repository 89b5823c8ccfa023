from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from mtmoe.inference.top import best_of, log_sums
from mtmoe.ops import native


@pytest.mark.parametrize("vocab_size", [5, 64, 130, 1000])
@pytest.mark.parametrize(("beam", "wanted"), [(1, 2), (4, 8), (3, 200)])
def test_the_best_are_those_of_a_sort_of_all(vocab_size: int, beam: int, wanted: int) -> None:
    generator = torch.Generator().manual_seed(vocab_size)
    scores = torch.randn(6, beam, vocab_size, generator=generator)
    scores[1, :, ::3] = float("-inf")
    before = torch.randn(6, beam, generator=generator)
    before[2, 1:] = float("-inf")
    found, parent, symbol = best_of(scores, before, wanted)
    every = (scores + before.unsqueeze(2)).flatten(1).sort(1, descending=True).values
    is_real = found > float("-inf")
    for b in range(6):
        num = min(wanted, int((every[b] > float("-inf")).sum()))
        assert_close(found[b, :num], every[b, :num])
        assert int(is_real[b].sum()) == num
    row = torch.arange(6).unsqueeze(1).expand_as(parent)
    chosen = (row[is_real], parent[is_real], symbol[is_real])
    assert_close(scores[chosen] + before[chosen[:2]], found[is_real])
    assert len(set(zip(*(part.tolist() for part in chosen), strict=True))) == int(is_real.sum())


def test_nothing_is_the_best_of_nothing() -> None:
    found = best_of(torch.empty(0, 2, 10), torch.empty(0, 2), 4)
    assert [tuple(part.shape) for part in found] == [(0, 4)] * 3


@pytest.mark.parametrize("V", [1, 15, 64, 1000])
def test_log_sums_are_those_of_softmax(V: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(3, 2, V, generator=torch.Generator().manual_seed(V)) * 20
    logits[0, 0, V // 2 :] = float("-inf")
    logits[0, 0, 0] = 30.0
    expected = logits.double().logsumexp(2).float()
    torch.testing.assert_close(log_sums(logits), expected)
    logits[2, 1, V // 2] = float("nan")
    logits[1, 0, V - 1] = float("inf")
    found = log_sums(logits)
    assert not found[2, 1].isfinite()
    assert not found[1, 0].isfinite()
    monkeypatch.setattr(native, "library", lambda: None)
    torch.testing.assert_close(log_sums(logits)[0], expected[0])
