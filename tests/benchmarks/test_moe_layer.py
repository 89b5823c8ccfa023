from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import moe_layer, moe_profile
from benchmarks.moe_cell import PASSES, Cell, make_calls
from benchmarks.moe_rows import build_layer, calls_of
from benchmarks.worker import Call
from mtmoe.config import BackendChoice
from mtmoe.errors import MtmoeError, run_command

CELL = Cell(32, 4, 1, "float32", 16, 32)
TINY = "--experts 4 --tokens 32 --top-k 1 --dtypes float32 --dim 16 --ffn-dim 32 --threads 1"
FIELDS = ["row", "tokens", "experts", "top_k", "dtype", "pass", "ratio", "seconds", "min", "max"]


def test_a_tiny_run_writes_table_and_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "moe.json"
    words = [*TINY.split(), "--rounds", "2", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["moe_layer", *words])
    assert run_command(moe_layer.main) == 0

    found = json.loads(file.read_text())
    assert [(r["pass"], r["row"]) for r in found] == [
        (name, row) for name in PASSES for row in ("dense", "mtmoe", "torch")
    ]
    for result in found:
        assert list(result) == FIELDS
        assert 0 < result["min"] <= result["seconds"] <= result["max"]
        assert result["ratio"] == 1 or result["row"] != "dense"

    out, err = capsys.readouterr()
    assert "| dense | 1.00 / 1.00 (" in out
    assert "machine: " in out
    assert "threads: 1" in out
    assert "[1/1] 32 tokens, 4 experts, top-1, float32: dense fwd 1.00" in err
    assert "used of a core while waiting: dense" in err


def test_no_figure_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["moe_layer", *TINY.split()])
    monkeypatch.setattr(moe_layer, "measure", lambda args: [])
    with pytest.raises(MtmoeError, match="no cell could be measured"):
        moe_layer.main()


def test_calls_reach_all_parameters_and_leave_no_gradients() -> None:
    layer = build_layer(CELL, BackendChoice.auto)
    call = calls_of(layer, CELL)["fwdbwd"]
    call.before()
    call.run()
    assert layer.training
    assert all(p.grad is not None for p in layer.parameters())
    call.after()
    assert all(p.grad is None for p in layer.parameters())


def test_forward_makes_no_graph() -> None:
    layer = build_layer(CELL, BackendChoice.auto)
    found: list[bool] = []
    calls = make_calls(layer, CELL, lambda x: found.append(torch.is_grad_enabled()) or x)
    calls["fwd"].timed()
    assert found == [False]
    assert not layer.training


def test_router_rows_have_equal_length_and_biases_are_zero() -> None:
    layer = build_layer(CELL, BackendChoice.torch)
    weights = dict(layer.named_parameters())
    torch.testing.assert_close(weights["router.weight"].norm(dim=1), torch.ones(4))
    assert not weights["experts.b_in"].any()
    assert not weights["experts.b_out"].any()
    assert 0.03 < weights["experts.w_in"].abs().max() <= 0.04


def test_limits_count_products_and_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moe_profile, "measure_peak", lambda dtype: 1e6)
    monkeypatch.setattr(moe_profile, "measure_bandwidth", lambda: 1e3)
    forward = moe_profile.measure_limits(CELL, "fwd", num_used=3)
    both = moe_profile.measure_limits(CELL, "fwdbwd", num_used=3)
    assert forward["flops"] == 2 * 32 * 16 * 32 * 2  # a multiply and an add, two products
    assert forward["weight_bytes"] == 3 * (16 * 32 + 32 * 16) * 4
    assert forward["product_limit"] == forward["flops"] / 1e6
    assert forward["weight_limit"] == forward["weight_bytes"] / 1e3
    assert (both["flops"], both["weight_bytes"]) == (
        3 * forward["flops"],
        3 * forward["weight_bytes"],
    )


def test_a_profile_parts_products_from_copies() -> None:
    x = torch.ones(256, 256)
    found = moe_profile.measure_parts(Call(lambda: (x @ x).index_select(0, torch.arange(256))))
    assert set(found["kinds"]) == {"products", "copies", "rest"}
    assert found["kinds"]["products"] > 0
    assert found["kinds"]["copies"] > 0
    assert sum(found["kinds"].values()) == pytest.approx(found["watched"])
    assert "aten::mm" in found["operators"]
