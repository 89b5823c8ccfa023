"""The ranks of a tensor group route each token once, with the random numbers of one process."""

from __future__ import annotations

import pytest
import torch

from mtmoe.modules.token_share import ALL_TOKENS, TokenShare
from mtmoe.parallel.mesh import Axis, Mesh


def shares_of(num_tokens, size):
    meshes = (Mesh(tensor=Axis(size, rank), shard_tokens=True) for rank in range(size))
    return [TokenShare.of(num_tokens, mesh, torch.device("cpu")) for mesh in meshes]


@pytest.mark.parametrize(("num_tokens", "size"), [(7, 2), (6, 3), (1, 2), (0, 2)])
def test_each_token_is_in_one_share_and_draws_what_it_would_alone(num_tokens, size):
    whole = torch.rand(num_tokens, 3, generator=torch.Generator().manual_seed(1))
    shares = shares_of(num_tokens, size)
    found = torch.full_like(whole, -1.0)
    for rank, share in enumerate(shares):
        mine = torch.arange(num_tokens)[rank::size]
        own = share.select(whole)
        assert torch.equal(own, whole[mine])
        assert share.num_tokens(own) == num_tokens
        assert torch.equal(share.draw(own, torch.Generator().manual_seed(1)), own)
        found[mine] = own
    assert torch.equal(found, whole)


def test_without_sharing_nothing_is_copied():
    x = torch.ones(3, 2)
    mesh = Mesh(tensor=Axis(2, 1))
    assert TokenShare.of(3, mesh, x.device) is ALL_TOKENS
    for same in (ALL_TOKENS.take, ALL_TOKENS.gather, ALL_TOKENS.select, ALL_TOKENS.sum):
        assert same(x) is x
    assert ALL_TOKENS.weight(x) is x
