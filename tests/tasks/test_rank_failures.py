"""What a rank says when it, or another one, fails."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor

from mtmoe.config import CheckpointFormat, MeshConfig
from mtmoe.errors import DataError, LayoutError
from mtmoe.parallel.mesh import ONE_PROCESS, Mesh, limit_waiting, make_mesh
from mtmoe.tasks.programs import explain
from mtmoe.tasks.ranks import check_optimizer, ending_without_memory
from tests.ranks import run_ranks

FULL = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore."),
    "CPU": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes."),
    "Python": MemoryError(),
}


@pytest.mark.parametrize("kind", list(FULL))
def test_a_rank_without_memory_ends_with_one_sentence(monkeypatch, capsys, kind):
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    with pytest.raises(SystemExit) as stop, ending_without_memory(Mesh(devices=object())):
        raise FULL[kind]
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: rank 1 has too little memory (")
    assert said.count("\n") == 1


def test_one_process_leaves_memory_to_fairseq_and_other_errors_pass():
    with pytest.raises(torch.OutOfMemoryError), ending_without_memory(ONE_PROCESS):
        raise FULL["CUDA"]
    with pytest.raises(RuntimeError, match="shape"), ending_without_memory(Mesh(devices=object())):
        raise RuntimeError("wrong shape")


SAID = {
    "error: rank 0 stops, for another one has ended; see its message.": RuntimeError(
        "[gloo/transport/tcp/pair.cc:537] Connection closed by peer [127.0.0.1]:36172"
    ),
    "error: every rank must answer within --collective-timeout, but one has not.": RuntimeError(
        "[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 10000ms for recv"
    ),
    "error: gradients must be finite, but are not (gradients are Nan/Inf).": FloatingPointError(
        "gradients are Nan/Inf"
    ),
    "error: the file is cut off.": DataError("the file is cut off."),
}


@pytest.mark.parametrize("sentence", list(SAID))
def test_the_last_words_of_a_program_name_the_cause(capsys, sentence):
    error = SAID[sentence]
    explain(type(error), error, None)
    assert capsys.readouterr().err.splitlines()[-1].startswith(sentence)


def check_waiting():
    make_mesh(MeshConfig(tensor_parallel_size=2))
    group = dist.new_group()  # one that times out is of no use any more
    limit_waiting(1)
    start = time.monotonic()
    if dist.get_rank() == 0:
        with pytest.raises(RuntimeError, match="Timed out waiting 1000ms"):
            dist.all_reduce(torch.ones(1), group=group)
        assert time.monotonic() - start < 10
    else:
        time.sleep(2.5)
    limit_waiting(60)


def test_a_group_waits_no_longer_than_it_may():
    run_ranks(check_waiting, 2)


def check_adam():
    mesh = init_device_mesh("cpu", (2,))
    model = nn.Linear(4, 4)
    adam = SimpleNamespace(cfg=SimpleNamespace(_name="adam"), optimizer=None)
    check_optimizer(model, adam, CheckpointFormat.gathered)  # each rank holds all of it
    model.weight = nn.Parameter(distribute_tensor(model.weight.detach(), mesh))
    with pytest.raises(LayoutError, match="must be fused_adam where ranks share parameters out"):
        check_optimizer(model, adam, CheckpointFormat.gathered)


def test_an_optimizer_of_whole_parameters_is_refused_where_they_are_shared_out():
    run_ranks(check_adam, 2)
