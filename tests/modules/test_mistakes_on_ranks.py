"""Mistakes of other MoE implementations on several ranks; a test names where it was seen."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.distributed as dist

from mtmoe.checkpoint.gathered import gather_adam
from mtmoe.config import AdamConfig, CheckpointActivations, MeshConfig, Zero
from mtmoe.ops.routing import RouterKey
from mtmoe.optim.tiled_adam import TiledAdam
from mtmoe.parallel.collectives import all_to_all
from mtmoe.parallel.gradients import gradient_norm, reduce_gradients
from mtmoe.parallel.mesh import ONE_PROCESS, make_mesh
from mtmoe.parallel.slices import num_copies, slices_of, stored_part
from tests.modules.layout_cells import assert_near, batch_of, config_of, loss_of, make_model
from tests.ranks import run_ranks

NONE, FULL, KEEP = CheckpointActivations


def on_ranks(expert, tensor, zero=Zero.none, checkpoint=NONE):
    mesh = make_mesh(MeshConfig(expert, tensor))
    return make_model(config_of("rts", checkpoint), mesh, zero), mesh


def alone():
    return make_model(config_of("rts", NONE), ONE_PROCESS, Zero.none)


def gradients_alone():
    model = alone()
    loss_of(model, 0, 0, 1).backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad
            for name, p in model.named_parameters()}  # fmt: skip


def check_gradients_of_equal_batches(expected):
    for expert, zero in product((2, 4), Zero):
        model, mesh = on_ranks(expert, 1, zero)
        loss_of(model, 0, 0, 1).backward()  # number 0 on every rank
        reduce_gradients(model.parameters(), mesh)
        for name, parameter in model.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            assert_near(f"{expert}, {zero}: {name}", gradient, expected[name][slices_of(parameter)])


def test_deepspeed_megablocks_megatron_expert_gradients_do_not_grow_with_expert_ranks():
    """The mean over ranks that have the same batch is the gradient of that batch."""
    run_ranks(check_gradients_of_equal_batches, 4, gradients_alone())


def check_first_weights(expected):
    model, _ = on_ranks(2, 1)
    for name, parameter in model.named_parameters():
        own = stored_part(parameter)
        assert torch.equal(own, expected[name][slices_of(parameter)]), name
        if name.endswith(("w_in", "w_out")):
            both = [torch.empty_like(own) for _ in range(2)]
            dist.all_gather(both, own)
            assert len({tuple(e.flatten().tolist()) for e in torch.cat(both)}) == 4, name


def test_deepspeed_experts_of_different_ranks_do_not_start_alike():
    run_ranks(check_first_weights, 2, {n: p.detach() for n, p in alone().named_parameters()})


def check_norm_of_ones(num_numbers):
    for (expert, tensor), zero in product(((2, 1), (2, 2), (1, 2), (4, 1)), Zero):
        model, mesh = on_ranks(expert, tensor, zero)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        if zero is Zero.none:  # else the test would tell nothing
            copies = {num_copies(p, 4) for n, p in model.named_parameters() if "experts" in n}
            assert copies == {4 // (expert * tensor), 4 // expert}
        norm = gradient_norm(model.parameters(), mesh)
        assert norm.item() == pytest.approx(num_numbers**0.5, rel=1e-12)


def test_fairseq_copies_of_an_expert_count_once_in_the_gradient_norm():
    run_ranks(check_norm_of_ones, 4, sum(p.numel() for p in alone().parameters()))


def adam_of(model):
    optimizer = TiledAdam(model.parameters(), AdamConfig(), lr=0.01)
    optimizer.step()
    return optimizer.state_dict()


def check_state_of_all_experts(expected):
    model, mesh = on_ranks(2, 1)
    loss_of(model, 0, 0, 1).backward()
    reduce_gradients(model.parameters(), mesh)
    parameters = list(model.parameters())
    found = gather_adam(adam_of(model), parameters)
    if dist.get_rank() > 0:
        return
    for number, state in expected["state"].items():
        for key, value in state.items():
            assert_near(f"{key} of {number}", found["state"][number][key], value)


def test_fairseq_the_optimizers_state_of_each_ranks_experts_is_saved():
    model = alone()
    loss_of(model, 0, 0, 1).backward()
    expected = adam_of(model)
    for number, (name, _) in enumerate(model.named_parameters()):
        if name.endswith("w_in"):  # else the test would tell nothing
            by_rank = expected["state"][number]["exp_avg"].view(2, -1).abs().sum(1)
            assert (by_rank > 0).all()
    run_ranks(check_state_of_all_experts, 2, expected)


def check_training_without_tokens(tokens_of_last):
    model, mesh = on_ranks(2, 1)
    source, target, _ = batch_of(0, 1, 1)
    if mesh.batch.rank == mesh.batch.size - 1:
        source, target = source[:tokens_of_last], target[:tokens_of_last]
    output = model(source, target, RouterKey.of(1, 0, mesh.batch.rank))
    output.states.sum().backward()
    reduce_gradients(model.parameters(), mesh)
    assert gradient_norm(model.parameters(), mesh).isfinite()


@pytest.mark.parametrize("tokens_of_last", [0, 1])
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_deepspeed_tutel_automodel_a_rank_with_fewer_or_no_tokens_does_not_hang(
    num_ranks, tokens_of_last
):
    run_ranks(check_training_without_tokens, num_ranks, tokens_of_last)


def check_recomputation(expert, tensor):
    found = []
    for mode in (NONE, FULL, KEEP):
        model, mesh = on_ranks(expert, tensor, checkpoint=mode)
        loss = loss_of(model, mesh.batch.rank, 0, 2)
        torch.rand(100)  # the global generator has moved on
        loss.backward()
        found.append([stored_part(p.grad) for p in model.parameters() if p.grad is not None])
    for gradients in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients, found[0], strict=True))


@pytest.mark.parametrize(("expert", "tensor"), [(2, 1), (1, 2), (2, 2)])
def test_many_recomputation_on_ranks_draws_the_same_numbers_and_routes_the_same(expert, tensor):
    run_ranks(check_recomputation, expert * tensor, expert, tensor)


def are_equal(x):
    both = [torch.empty_like(x) for _ in range(2)]
    dist.all_gather(both, x.detach().contiguous())
    return torch.equal(*both)


def check_decisions(tensor):
    model, mesh = on_ranks(1, tensor)
    source, target, _ = batch_of(0, 1, 1)  # the same on both ranks
    routings = model(source, target, RouterKey.of(1, 0, mesh.batch.rank)).routings
    for routing in routings:
        assert are_equal(routing.probs) == (tensor == 2), "jitter"
        assert are_equal(routing.slot) == (tensor == 2), "random token selection"


@pytest.mark.parametrize("tensor", [2, 1])
def test_any_the_routers_random_numbers_are_equal_on_tensor_ranks_only(tensor):
    run_ranks(check_decisions, 2, tensor)


def check_gradient_that_lies_otherwise():
    axis = make_mesh(MeshConfig(expert_parallel_size=2)).expert
    gradient = torch.arange(12.0).view(4, 3) + 100 * axis.rank
    found = []
    for given in (gradient, gradient.t().contiguous().t()):
        x = torch.zeros(4, 3, requires_grad=True)
        all_to_all(x, [2, 2], [2, 2], axis).backward(given)
        found.append(x.grad)
    assert torch.equal(*found)
    rows = 2 * axis.rank + torch.arange(2)
    assert torch.equal(found[0][:2], torch.arange(12.0).view(4, 3)[rows])


def test_any_a_gradient_that_is_not_contiguous_is_not_permuted():
    run_ranks(check_gradient_that_lies_otherwise, 2)
