from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from mtmoe.config import Activation, RouterConfig, TransformerConfig, WeightType
from mtmoe.data.vocabulary import PAD
from mtmoe.errors import LayoutError
from mtmoe.inference.expert_share import ALL_EXPERTS, ExpertShare, keep_own_experts
from mtmoe.inference.weights import fix_weights
from mtmoe.modules.transformer import Transformer
from mtmoe.parallel.mesh import Axis
from tests.inference.test_weights import logits
from tests.ranks import run_ranks


def build(top_k: int) -> Transformer:
    config = TransformerConfig(
        encoder_layers=2, decoder_layers=2, embed_dim=32, ffn_dim=64, attention_heads=4,
        shared_ffn_dim=16, activation=Activation.swiglu,
        router=RouterConfig(num_experts=5, top_k=top_k),
    )  # fmt: skip
    return Transformer(config, 70, PAD, seed=2).eval()


def check_same_bits(top_k: int) -> None:
    share = ExpertShare(Axis(dist.get_world_size(), dist.get_rank(), dist.group.WORLD))
    for is_fixed in (False, True):
        whole, ours = build(top_k), build(top_k)
        if is_fixed:
            fix_weights(whole, WeightType.float32)
            fix_weights(ours, WeightType.float32, share=share)
        else:  # as on GPUs; one rank's experts are `SharedOutExperts`, too, since theirs are fused
            keep_own_experts(whole, ALL_EXPERTS)
            keep_own_experts(ours, share)
            sizes = [p.shape[0] for name, p in ours.named_parameters() if name.endswith("w_in")]
            assert sizes == [len(share.own(5))] * 2
        assert torch.equal(logits(ours), logits(whole))


@pytest.mark.parametrize("num_ranks", [2, 4])
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_shared_out_experts_give_the_bits_of_whole_ones(num_ranks: int, top_k: int) -> None:
    run_ranks(check_same_bits, num_ranks, top_k)


def test_one_share_of_all_experts_is_the_network() -> None:
    whole, same = build(2), build(2)
    keep_own_experts(same, ALL_EXPERTS)
    torch.testing.assert_close(logits(same), logits(whole), atol=1e-5, rtol=1e-5)


def test_experts_are_cut_into_nearly_equal_parts() -> None:
    shares = [ExpertShare(Axis(3, rank)) for rank in range(3)]
    assert [list(share.own(5)) for share in shares] == [[0], [1, 2], [3, 4]]
    assert [list(share.own(1)) for share in shares] == [[], [], [0]]
    assert [share.own_rows([2, 0, 1, 4, 0]) for share in shares] == [
        slice(0, 2), slice(2, 3), slice(3, 7)
    ]  # fmt: skip


def test_more_ranks_than_experts_are_refused() -> None:
    share = ExpertShare(Axis(4, 0))
    share.check([2, 4])
    with pytest.raises(LayoutError, match=r"experts of a layer \(3\), but is 4"):
        share.check([3, 3])
    with pytest.raises(LayoutError, match=r"experts of a layer \(1\), but is 4"):
        share.check([])
