"""Half precision: what --bf16 means, and what is refused in one sentence."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mtmoe.errors import ConfigError
from mtmoe.parallel.mesh import ONE_PROCESS, Mesh
from mtmoe.tasks.programs import autocast_arguments
from mtmoe.tasks.ranks import check_precision
from tests.fairseq_run import train


def test_bf16_is_autocast():
    words = ["data", "--bf16", "--lr", "0.1"]
    assert autocast_arguments(words) == ["data", "--autocast=bfloat16", "--lr", "0.1"]
    assert autocast_arguments(words[2:]) == ["--lr", "0.1"]


def test_weights_in_bfloat16_are_refused():
    with pytest.raises(ConfigError, match="--memory-efficient-bf16 must not be given, but is"):
        autocast_arguments(["--memory-efficient-bf16"])


def settings(**values):
    names = ("cpu", "fp16", "bf16", "memory_efficient_fp16")
    return SimpleNamespace(**(dict.fromkeys(names, False) | values))


@pytest.mark.parametrize(
    ("values", "mesh", "message"),
    [
        (
            {"bf16": True},
            ONE_PROCESS,
            r"common\.bf16 must be off under Hydra, but is on: .*criterion\.autocast",
        ),
        ({"fp16": True, "cpu": True}, ONE_PROCESS, "fp16 must be off on a CPU, .* Use --bf16"),
        (
            {"fp16": True, "memory_efficient_fp16": True, "cpu": True},
            Mesh(devices="several"),
            "fp16 must be off where several ranks hold the model, but is on: .* Use --bf16",
        ),
    ],
)
def test_what_cannot_work_says_what_can(values, mesh, message):
    with pytest.raises(ConfigError, match=message):
        check_precision(mesh, settings(**values))


def test_what_works_is_not_refused():
    check_precision(ONE_PROCESS, settings())
    check_precision(ONE_PROCESS, settings(fp16=True, memory_efficient_fp16=True, cpu=True))
    check_precision(Mesh(devices="several"), settings())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_fp16_on_a_cpu_is_one_sentence(toy_data, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        train(toy_data, tmp_path, "--fp16")
    assert stop.value.code == 2
    assert "fp16 must be off on a CPU" in capsys.readouterr().err
