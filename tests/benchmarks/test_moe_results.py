from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.moe_cell import Cell
from benchmarks.moe_plot import draw_ratios
from benchmarks.moe_results import compare, to_markdown
from benchmarks.timings import write_entries

CELL = Cell(1024, 16, 1, "float32", 512, 2048)
TIMINGS = {"dense": [2.0, 1.0, 9.0], "mtmoe": [1.0, 5.0, 3.0]}


def test_ratios_are_of_medians() -> None:
    dense, mtmoe = compare(CELL, "fwd", TIMINGS)
    assert (dense.ratio, mtmoe.ratio) == (1.0, 1.5)
    assert mtmoe.quartiles == (1.0, 2.0)
    assert mtmoe.as_dict() == {
        "row": "mtmoe",
        "tokens": 1024,
        "experts": 16,
        "top_k": 1,
        "dtype": "float32",
        "pass": "fwd",
        "ratio": 1.5,
        "seconds": 3.0,
        "min": 1.0,
        "max": 5.0,
    }


def test_one_round_has_no_spread() -> None:
    _, mtmoe = compare(CELL, "fwd", {"dense": [2.0], "mtmoe": [1.0]})
    assert mtmoe.quartiles == (0.5, 0.5)


def test_without_the_dense_row_there_is_no_result() -> None:
    assert compare(CELL, "fwd", {"mtmoe": [1.0]}) == []


def test_the_table_shows_what_is_missing() -> None:
    results = compare(CELL, "fwd", TIMINGS) + compare(CELL, "fwdbwd", {"dense": [4.0]})
    results += compare(replace(CELL, experts=128), "fwd", {"dense": [1.0]})
    assert to_markdown(results) == (
        "### float32, top-1\n\n"
        "| time / dense: fwd / fwdbwd (quartiles) | 1024 tokens, E 16 | 1024 tokens, E 128 |\n"
        "| --- | --- | --- |\n"
        "| dense | 1.00 / 1.00 (0.75-2.75 / 1.00-1.00) | 1.00 / - (1.00-1.00 / -) |\n"
        "| mtmoe | 1.50 / - (1.00-2.00 / -) | - |"
    )


def test_each_dtype_and_top_k_has_a_table() -> None:
    cells = [CELL, replace(CELL, top_k=2), replace(CELL, dtype="bfloat16")]
    table = to_markdown([r for cell in cells for r in compare(cell, "fwd", TIMINGS)])
    heads = [line for line in table.splitlines() if line.startswith("#")]
    assert heads == ["### float32, top-1", "### float32, top-2", "### bfloat16, top-1"]


def test_files_hold_all_results(tmp_path: Path) -> None:
    cells = [CELL, replace(CELL, experts=4), replace(CELL, tokens=64, top_k=2)]
    results = [r for cell in cells for r in compare(cell, "fwd", TIMINGS)]
    write_entries([r.as_dict() for r in results], tmp_path / "r.json")
    draw_ratios(results, tmp_path / "r.png", "title")
    assert json.loads((tmp_path / "r.json").read_text()) == [r.as_dict() for r in results]
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text("before")
    with pytest.raises(TypeError):
        write_entries([{"row": object()}], file)
    assert file.read_text() == "before"
