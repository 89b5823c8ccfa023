"""Each way of tokens to their experts equals one process: outputs, gradients, parameters."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch._dynamo  # checkpointing imports it, which takes seconds: before ranks fork
import torch.distributed as dist
from torch.testing import assert_close

from mtmoe.config import (
    AllToAll,
    CheckpointActivations,
    ChoiceWeight,
    ChooseBy,
    DropPolicy,
    MeshConfig,
    RouterConfig,
    SecondChoice,
    SharedMode,
    TransformerConfig,
    Zero,
)
from mtmoe.errors import ConfigError, LayoutError
from mtmoe.modules.experts import Experts
from mtmoe.parallel.collectives import count_traffic
from mtmoe.parallel.gradients import gradient_norm, reduce_gradients
from mtmoe.parallel.mesh import ONE_PROCESS, Axis, Mesh, make_mesh
from mtmoe.parallel.slices import gather_whole, stored_part
from tests.modules.layout_cells import NEAR, descend, loss_of, make_model
from tests.ranks import run_ranks

NONE, FULL, KEEP = CheckpointActivations
RTS = {"router": {"capacity_factor": 0.8, "z_loss_weight": 0.1}}
DROPLESS = {"router": {"top_k": 2}}
NOISY = {
    "router": {
        "top_k": 2,
        "capacity_factor": 0.7,
        "jitter": 0.1,
        "second_choice": SecondChoice.sampled,
        "expert_output_masking": 0.2,
    },
    "shared_mode": SharedMode.conditional,
    "gate_dropout": 0.2,
}
BY_SCORE = {"router": {"capacity_factor": 0.6, "drop_policy": DropPolicy.score}}
EXPERTS_CHOOSE = {
    "router": {"top_k": 2, "choice_weight": ChoiceWeight.normalised},
    "encoder_routing": ChooseBy.expert,
}
DEDUPLICATE, SHARD = {"deduplicate_tokens": True}, {"shard_tokens": True}
WHOLE = {"whole_experts": True}
NODES = {"all_to_all": AllToAll.hierarchical, "node_size": 2}


def make_config(settings, mode=NONE):
    defaults = {"num_experts": 4, "drop_policy": DropPolicy.random}
    return TransformerConfig(
        encoder_layers=2,
        decoder_layers=2,
        embed_dim=16,
        ffn_dim=12,
        shared_ffn_dim=4,
        attention_heads=4,
        dropout=0.0,
        moe_every=2,
        checkpoint_activations=mode,
        **settings | {"router": RouterConfig(**defaults | settings["router"])},
    )


def check(sizes, options, settings, mode=NONE, zero=Zero.none):
    """Two updates of uneven batches, of which some are empty."""
    mesh = make_mesh(MeshConfig(sizes[1], sizes[2], zero, **options))
    whole, ours = (
        make_model(make_config(settings)),
        make_model(make_config(settings, mode), mesh, zero),
    )
    for update in range(2):
        losses = []
        for number in range(mesh.batch.size):
            losses.append(loss_of(whole, number, update, mesh.batch.size))
            losses[-1].div(mesh.batch.size).backward()
        number = mesh.batch.rank
        loss = loss_of(ours, number, update, mesh.batch.size)
        loss.backward()
        assert_close(loss, losses[number], **NEAR)
        reduce_gradients(ours.parameters(), mesh)
        norm = gradient_norm(whole.parameters(), ONE_PROCESS)
        assert_close(gradient_norm(ours.parameters(), mesh), norm, **NEAR)
        compare(ours, whole, lambda p: p.grad)
        for model in (whole, ours):
            descend(model)
            model.zero_grad()
        compare(ours, whole, lambda p: p)


def compare(ours, whole, read):
    theirs = dict(whole.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = read(theirs[name])
        if expected is None:  # keys' biases; what an empty batch does not reach
            assert read(parameter) is None or not stored_part(read(parameter)).any(), name
            continue
        found = gather_whole(stored_part(read(parameter)), parameter)
        assert_close(found, expected.detach(), **NEAR, msg=lambda text, n=name: f"{n}: {text}")


def run_check(sizes, *args):
    run_ranks(check, sizes[0] * sizes[1] * sizes[2], sizes, *args)


FEW = {
    "whole experts": ((1, 2, 2), WHOLE | DEDUPLICATE, RTS),
    "whole experts of a tensor group alone": ((1, 1, 2), WHOLE | DEDUPLICATE, DROPLESS, KEEP),
    "whole experts, ZeRO": ((2, 1, 2), WHOLE | DEDUPLICATE, RTS, NONE, Zero.parameters),
    "two steps": ((1, 4, 1), NODES, RTS),
    "two steps, duplicates dropped": ((1, 4, 2), NODES | {"node_size": 4} | DEDUPLICATE, DROPLESS),
    "two steps to whole experts": ((1, 2, 2), NODES | WHOLE | DEDUPLICATE, RTS, FULL),
    "tokens sharded": ((1, 2, 2), SHARD, NOISY),
    "tokens sharded in a tensor group alone": ((1, 1, 2), SHARD, BY_SCORE, FULL),
    "tokens sharded, experts choose": ((1, 1, 2), SHARD, EXPERTS_CHOOSE, KEEP),
    "tokens sharded, ZeRO": ((2, 1, 2), SHARD, RTS, KEEP, Zero.gradients),
    "tokens sharded to whole experts": ((1, 2, 2), SHARD | WHOLE, RTS),
}


@pytest.mark.parametrize("case", list(FEW))
def test_equals_one_process(case):
    run_check(*FEW[case])


@pytest.mark.long
@pytest.mark.parametrize("settings", [RTS, DROPLESS, NOISY, BY_SCORE, EXPERTS_CHOOSE])
@pytest.mark.parametrize("options", [DEDUPLICATE, SHARD, WHOLE | DEDUPLICATE, WHOLE | SHARD])
def test_every_combination_equals_one_process(options, settings):
    run_check((1, 2, 2), options, settings, FULL)
    run_check((2, 1, 2), options, settings, KEEP, Zero.parameters)
    sizes, ranks = ((1, 2, 2), 2) if "whole_experts" in options else ((1, 4, 2), 4)
    run_check(sizes, options | NODES | {"node_size": ranks}, settings)


def check_bytes():
    sent, calls = {}, {}
    cases = {"all": {}, "deduplicated": DEDUPLICATE, "sharded": SHARD}
    for name, options in cases.items():
        mesh = make_mesh(MeshConfig(2, 2, **options))
        model = make_model(make_config(DROPLESS), mesh)
        with count_traffic() as traffic:
            loss_of(model, 0, 0, 1).backward()
        sent[name], calls[name] = traffic.sent_bytes["all_to_all"], traffic.calls["all_to_all"]
    total = torch.tensor(list(sent.values()))
    dist.all_reduce(total)
    assert len(set(calls.values())) == 1
    assert total[0] == 2 * total[1] == 2 * total[2]


def test_sharded_tokens_send_as_little_as_deduplicated_ones():
    run_ranks(check_bytes, 4)


def test_experts_that_do_not_divide_among_all_owners_are_refused():
    config = dataclasses.replace(make_config(RTS), router=RouterConfig(num_experts=6))
    with pytest.raises(LayoutError, match=r"expert_parallel_size \* tensor_parallel_size \(4\)"):
        Experts(config, Mesh(joint=Axis(size=4)))


def test_options_that_exclude_each_other_are_refused():
    with pytest.raises(ConfigError, match="off with deduplicate_tokens, which it includes"):
        MeshConfig(2, 2, deduplicate_tokens=True, shard_tokens=True)
    with pytest.raises(ConfigError, match="experts would get each token twice"):
        MeshConfig(2, 2, whole_experts=True)
