from __future__ import annotations

import sys

import pytest

from benchmarks import cpu_products
from mtmoe.config import WeightType
from mtmoe.ops.packed_linear import can_pack


@pytest.mark.skipif(not can_pack(WeightType.float32), reason="no product of our own is here")
def test_a_line_for_each_size_and_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cpu_products, "SIZES", ((8, 16), (4, 32)))
    monkeypatch.setattr(cpu_products, "ROWS", (1, 3))
    monkeypatch.setattr(cpu_products, "MEMORY", 1)
    monkeypatch.setattr(sys, "argv", ["cpu_products", "--rounds", "1"])
    cpu_products.main()
    table = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(table) == 2 + 2 * (sum(map(can_pack, WeightType)) + 1)
    assert all(float(cell.strip(" |")) > 0 for line in table[2:] for cell in line[2:])
