"""Stock fairseq-train on any layout of ranks computes what one process does, in float32."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.testing import assert_close

from mtmoe.config import CheckpointActivations, Zero
from tests.fairseq_ranks import train_on_ranks
from tests.modules.layout_cells import Cell, covering_cells, pairs_of

NEAR = {"atol": 1e-5, "rtol": 1e-5}
ROUTINGS = {"rts": ["--capacity-factor", "1.0"], "dropless": ["--top-k", "2"]}
# Two directions: one batch each in validation, so that some ranks have none. ReLU's gradient jumps:
# a hidden number that is 0 but for rounding can change one element of a gradient by more than 1e-5.
OPTIONS = [
    "--source-lang", "aa", "--max-tokens", "300", "--max-tokens-valid", "4000", "--lr", "0.005",
    "--warmup-updates", "5", "--max-update", "10", "--activation", "gelu",
]  # fmt: skip
NONE, FULL, KEEP = CheckpointActivations
SLOW = [  # each layout once
    Cell((2, 1, 1), Zero.parameters, False, FULL, "rts"),
    Cell((1, 2, 1), Zero.none, True, KEEP, "dropless"),
    Cell((1, 1, 2), Zero.gradients, False, NONE, "rts"),
    Cell((2, 2, 1), Zero.gradients, False, KEEP, "dropless"),
    Cell((1, 2, 2), Zero.parameters, True, KEEP, "rts"),
    Cell((2, 1, 2), Zero.none, True, FULL, "dropless"),
]
LONG = [*covering_cells(), Cell((2, 2, 2), Zero.parameters, True, KEEP, "rts")]


def options_of(cell, number):
    """Its options; --update-freq and where Adam's state lies change with the cell's number."""
    _, expert, tensor = cell.sizes
    values = {
        "expert-parallel-size": expert,
        "tensor-parallel-size": tensor,
        "zero": cell.zero,
        "checkpoint-activations": cell.checkpoint,
        "state-location": ("device", "host")[number // 2 % 2],
        "update-freq": 1 + number % 2,
    }
    words = [f"--{name}={value}" for name, value in values.items()]
    return words + ["--deduplicate-tokens"] * cell.deduplicate + ROUTINGS[cell.routing]


@pytest.fixture(scope="module")
def alone(toy_data, tmp_path_factory):
    """One process that takes the ranks' batches as micro-batches."""

    @functools.cache
    def trained(routing, num_batches):
        folder = tmp_path_factory.mktemp("alone")
        options = [*OPTIONS, *ROUTINGS[routing], f"--update-freq={num_batches}"]
        state, (trace,) = train_on_ranks(1, toy_data, folder, *options)
        return state, trace

    return trained


def check_cell(cell, number, data, alone, folder):
    d, e, t = cell.sizes
    num_micro = 1 + number % 2
    expected, theirs = alone(cell.routing, d * e * num_micro)
    found, traces = train_on_ranks(d * e * t, data, folder, *OPTIONS, *options_of(cell, number))
    for rank, trace in enumerate(traces):
        check_trace(trace, theirs, rank // t, d * e)
    for name, tensor in expected["model"].items():
        assert_close(found["model"][name], tensor, **NEAR)
    losses = [state["extra_state"]["val_loss"] for state in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], abs=2e-3), "fairseq rounds it to three digits"


def check_trace(trace, theirs, rank, num_ranks):
    """Micro-batch m of rank r is number m * ranks + r of the one process."""
    assert len(trace.norms) == 10
    assert_close(trace.losses, theirs.losses[rank::num_ranks], **NEAR)
    assert_close(trace.norms, theirs.norms, **NEAR)
    for number, (own, gradient) in trace.gradients.items():
        whole = theirs.gradients.get(number)  # of keys' biases, one process has none
        expected = torch.zeros(1) if whole is None else whole[1][tuple(slice(*o) for o in own)]
        assert_close(gradient, expected.expand_as(gradient), **NEAR)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(n, marks=pytest.mark.slow if cell.sizes == (2, 2, 1) else pytest.mark.long)
        for n, cell in enumerate(SLOW)
    ],
    ids=["x".join(map(str, cell.sizes)) for cell in SLOW],
)
def test_each_layout_trains_as_one_process(number, toy_data, alone, tmp_path):
    check_cell(SLOW[number], number, toy_data, alone, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("number", range(len(LONG)))
def test_each_pair_of_settings_trains_as_one_process(number, toy_data, alone, tmp_path):
    check_cell(LONG[number], number, toy_data, alone, tmp_path)


@pytest.mark.slow
def test_bf16_trains_as_one_process_does_and_keeps_float32_weights(toy_data, tmp_path):
    options, losses = [*OPTIONS, "--max-update=5"], {}
    layout = ["--bf16", "--expert-parallel-size=2", "--zero=parameters"]
    state, traces = train_on_ranks(2, toy_data, tmp_path / "ranks", *options, *layout)
    for name, words in (("bf16", ["--bf16"]), ("float32", [])):
        words = [*options, *words, "--update-freq=2"]
        _, (trace,) = train_on_ranks(1, toy_data, tmp_path / name, *words)
        losses[name] = trace.losses
    for rank, trace in enumerate(traces):
        assert trace.losses == pytest.approx(losses["bf16"][rank::2], rel=0.02)
    assert losses["bf16"] != pytest.approx(losses["float32"], rel=1e-5)
    assert {t.dtype for t in state["model"].values()} <= {torch.float32, torch.uint8}


@pytest.mark.slow
def test_deepspeed_tutel_automodel_ranks_with_fewer_batches_do_not_hang(toy_data, tmp_path):
    """An epoch whose batches do not divide among 4 ranks x 3, and validation with two batches."""
    options = ["--source-lang=aa", "--max-tokens=300", "--max-tokens-valid=4000", "--max-epoch=1"]
    state, traces = train_on_ranks(4, toy_data, tmp_path, *options, "--update-freq=3")
    num_updates = state["optimizer_history"][-1]["num_updates"]
    assert num_updates > 1
    assert {len(trace.losses) for trace in traces} == {3 * num_updates}


def test_the_slow_cells_have_each_value_of_each_setting():
    assert values_of(SLOW) == values_of(covering_cells())


def values_of(cells):
    return {item for pair in pairs_of(cells) for item in (pair[:2], pair[2:])}
