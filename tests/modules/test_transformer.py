"""The network: padding, caching, batches and experts leave a sentence's output alone."""

from __future__ import annotations

import pytest
import torch

from mtmoe.config import RouterConfig, TransformerConfig
from mtmoe.modules.tokens import Tokens
from mtmoe.modules.transformer import Transformer
from mtmoe.ops.routing import RouterKey

PAD = 1


def make_model(seed=1, **settings):
    router = RouterConfig(num_experts=4, **settings.pop("router", {}))
    sizes = {"encoder_layers": 2, "decoder_layers": 3, "embed_dim": 32, "ffn_dim": 48}
    sizes |= {"attention_heads": 4, "moe_every": 1, "dropout": 0.0}
    return Transformer(TransformerConfig(**(sizes | settings), router=router), 50, PAD, seed)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(4, 50, (3, 7), generator=generator)
    target = torch.randint(4, 50, (3, 6), generator=generator)
    source[1, 4:], target[1, 3:], target[2, 5:] = PAD, PAD, PAD
    return source, target


@torch.no_grad()
def test_output_of_a_sentence_does_not_depend_on_the_batch():
    model = make_model().eval()
    source, target = batch()
    together = model(source, target).states
    alone = model(source[1:2, :4], target[1:2, :3]).states
    torch.testing.assert_close(together[1:2, :3], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_on_the_left_gives_the_same():
    model = make_model().eval()
    source, target = batch()
    left = source.clone()
    left[1] = torch.cat([source[1, 4:], source[1, :4]])
    expected, found = model(source, target).states, model(left, target).states
    torch.testing.assert_close(found[1, :3], expected[1, :3], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_decoding_with_a_cache_equals_decoding_at_once():
    model = make_model().eval()
    source, target = batch()
    whole = model(source, target).states
    memory, cache = model.encode(source), model.new_cache()
    steps = [model.decode(target[:, :2], memory, cache=cache).states]
    steps += [model.decode(target[:, s : s + 1], memory, cache=cache).states for s in range(2, 6)]
    torch.testing.assert_close(
        torch.cat(steps, 1)[target != PAD], whole[target != PAD], atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_cache_and_memory_follow_the_selected_rows():
    model = make_model().eval()
    source, target = batch()
    rows = torch.tensor([2, 0, 2])
    memory, cache = model.encode(source), model.new_cache()
    model.decode(target[:, :2], memory, cache=cache)
    cache.select(rows)
    found = model.decode(target[rows, 2:3], memory.select(rows), cache=cache).states
    expected = model(source[rows], target[rows]).states[:, 2:3]
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]], atol=1e-5, rtol=1e-5)


def test_position_sees_only_what_stands_before_it():
    model = make_model().eval()
    source, target = batch()
    changed = target.clone()
    changed[0, 4] = 7 if target[0, 4] != 7 else 8
    with torch.no_grad():
        a, b = model(source, target).states[0], model(source, changed).states[0]
    torch.testing.assert_close(a[:4], b[:4])
    assert not torch.allclose(a[4:], b[4:])


def test_padding_is_not_routed_and_enters_no_loss():
    model = make_model(router={"capacity_factor": 1.0, "jitter": 0.0}).train()
    source, target = batch()
    wider = torch.cat([source, torch.full((3, 5), PAD)], 1)
    narrow, wide = (model(s, target, key=RouterKey(1, 1)).routings for s in (source, wider))
    for a, b in zip(narrow, wide, strict=True):
        assert torch.equal(a.expert, b.expert)
        assert torch.equal(a.slot, b.slot)
        torch.testing.assert_close(a.balance_loss, b.balance_loss)
    assert narrow[0].expert.shape[0] == int((source != PAD).sum())


def test_training_forward_is_a_function_of_its_key():
    model = make_model(router={"capacity_factor": 0.5}).train()
    source, target = batch()
    first, again, other = (model(source, target, RouterKey(0, share)).states for share in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_first_weights_depend_on_the_name_alone():
    big, small = make_model(encoder_layers=2), make_model(encoder_layers=1)
    state = big.state_dict()
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    experts = state["encoder.0.feed_forward.ffn.experts.w_in"]
    assert not torch.equal(experts[0], experts[1]), "experts must not start alike"


@pytest.mark.parametrize(("every", "names"), [(0, ()), (2, ("encoder.1", "decoder.1"))])
def test_moe_stands_on_every_nth_layer(every, names):
    model = make_model(moe_every=every)
    assert model.config.moe_layer_names == names
    source, target = batch()
    assert len(model(source, target, key=RouterKey(1, 1)).routings) == len(names)


def test_all_parameters_receive_gradients():
    model = make_model(router={"top_k": 4}).train()
    output = model(*batch(), key=RouterKey(1, 1))
    (model.project(output.states).logsumexp(-1).sum()).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # a key's bias adds the same to all scores of a query: softmax does not see it
    assert [n for n in missing if not n.endswith("key.bias")] == []


def test_shared_network_adds_its_output_for_real_tokens_only():
    layer = make_model(shared_ffn_dim=24).eval().encoder[0].feed_forward.ffn
    x = torch.randn(2, 3, 32)
    tokens = Tokens((2, 3), real=torch.tensor([0, 1, 3, 4, 5]))
    with torch.no_grad():
        both, _ = layer(x, tokens)
        shared = layer.shared(x)
        layer.shared = None
        experts, _ = layer(x, tokens)
    expected = experts + shared
    expected[0, 2] = 0  # padding
    torch.testing.assert_close(both, expected)
