"""MoE layers with different numbers of experts."""

from __future__ import annotations

import pytest
import torch

from mtmoe.config import ChoiceWeight, RouterConfig, TransformerConfig
from mtmoe.data.vocabulary import PAD
from mtmoe.errors import ConfigError
from mtmoe.modules.transformer import Transformer

SHAPE = {"encoder_layers": 4, "decoder_layers": 2, "embed_dim": 16, "attention_heads": 2}


def make_config(numbers: str, top_k: int = 2, **router: object) -> TransformerConfig:
    router_config = RouterConfig(num_experts=4, top_k=top_k, **router)
    return TransformerConfig(**SHAPE, ffn_dim=8, experts_by_layer=numbers, router=router_config)


def test_each_layer_has_its_own_number_of_experts() -> None:
    config = make_config("4, 1,3")
    assert config.moe_layer_names == ("encoder.1", "encoder.3", "decoder.1")
    assert config.num_experts_by_layer == (4, 1, 3)
    model = Transformer(config, 20, PAD, seed=1).eval()
    for name, number in zip(config.moe_layer_names, (4, 1, 3), strict=True):
        layer = model.get_submodule(f"{name}.feed_forward.ffn")
        assert layer.router.weight.shape == (number, 16)
        assert layer.experts.w_in.shape == (number, 16, 8)
    routings = model(torch.tensor([[5, 6, 2]]), torch.tensor([[7, 8]])).routings
    assert [routing.expert.shape[1] for routing in routings] == [2, 1, 2]  # no more than there are
    assert torch.equal(routings[1].weight, torch.ones(3, 1))


def test_without_numbers_all_layers_have_num_experts() -> None:
    config = make_config("")
    assert config.num_experts_by_layer == (4, 4, 4)
    assert config.for_layer(1) is config


def test_equal_numbers_make_the_same_model() -> None:
    one, other = (Transformer(make_config(text), 20, PAD, seed=1) for text in ("", "4,4,4"))
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


def test_of_one_expert_the_only_weight_is_1_whatever_the_choices() -> None:
    config = make_config("4,1,1", choice_weight=ChoiceWeight.normalised, second_choice="sampled")
    router = config.for_layer(1).router
    assert (router.num_experts, router.top_k) == (1, 1)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ("4,4", "one number for each of the 3 MoE layers, as 8,4, but is 4,4"),
        ("4,x,4", "one number for each of the 3 MoE layers"),
        ("4,-1,4", "one number for each of the 3 MoE layers"),
        ("4,0,4", r"numbers from 1 to num_experts \(4\), which the largest is, but is 4,0,4"),
        ("3,3,3", "which the largest is"),
        ("5,4,4", "which the largest is"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(numbers: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(numbers)
