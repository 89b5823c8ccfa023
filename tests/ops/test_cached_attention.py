from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor
from torch.testing import assert_close

from mtmoe.ops import native
from mtmoe.ops.cached_attention import attend

needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C compiler is here")


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attend_by_definition(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None
) -> Tensor:
    heads = F.scaled_dot_product_attention(query, key.float(), value.float(), visible)
    return heads.transpose(1, 2).flatten(2)


def visible_of(kind: str, B: int, K: int, S: int) -> Tensor | None:
    is_seen = draw(B, 1, K, S, seed=4) < 0.5
    is_seen[..., 0] = True
    if kind == "float":
        return torch.where(is_seen, draw(B, 1, K, S, seed=5), float("-inf"))
    return {"none": None, "bool": is_seen, "one_row": is_seen[:, :, :1]}[kind]


@needs_compiler
@settings(deadline=None, max_examples=60)
@given(
    B=st.integers(1, 3), H=st.integers(1, 3), K=st.integers(1, 5), S=st.integers(1, 70),
    d=st.sampled_from([16, 32, 48, 64, 128]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    kind=st.sampled_from(["none", "bool", "one_row", "float"]),
)  # fmt: skip
@torch.inference_mode()
def test_one_pass_is_attention(
    B: int, H: int, K: int, S: int, d: int, dtype: torch.dtype, kind: str
) -> None:
    query = draw(B, K, H, d, seed=1).transpose(1, 2)
    key, value = (draw(B, H, 2 * S, d, seed=n).to(dtype)[:, :, ::2] for n in (2, 3))
    visible = visible_of(kind, B, K, S)
    expected = attend_by_definition(query, key, value, visible)
    assert_close(attend(query, key, value, visible), expected, atol=3e-6, rtol=1e-5)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_what_is_hidden_does_not_change_a_bit(dtype: torch.dtype) -> None:
    query, key, value = draw(2, 2, 3, 32), draw(2, 2, 90, 32, seed=2), draw(2, 2, 90, 32, seed=3)
    key, value = key.to(dtype), value.to(dtype)
    for S in (1, 15, 16, 17, 50):
        alone = attend(query[1:, :, 1:2], key[1:, :, :S], value[1:, :, :S], None)
        is_seen = (torch.arange(90) < S).view(1, 1, 1, 90).expand(2, 1, 1, 90)
        beside = attend(query, key, value, is_seen)
        assert torch.equal(beside[1:, 1:2], alone)


@needs_compiler
@torch.inference_mode()
def test_large_scores_stay_numbers_and_no_number_stays_none() -> None:
    query, key, value = draw(1, 1, 2, 16) * 1e4, draw(1, 1, 20, 16, seed=2), draw(1, 1, 20, 16)
    expected = attend_by_definition(query, key, value, None)
    assert_close(attend(query, key, value, None), expected)
    key[0, 0, 3, 5] = float("nan")
    assert attend(query, key, value, None).isnan().all()
    hidden = torch.zeros(1, 1, 1, 20, dtype=torch.bool)
    assert not attend(query, key, value, hidden).any()
