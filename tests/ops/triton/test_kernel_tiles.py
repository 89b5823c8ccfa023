"""The table of row tiles, against a loop; tile sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtmoe.errors import ConfigError
from mtmoe.ops.triton import tiles
from mtmoe.ops.triton.blocks import check_dtype, rows_per_tile
from mtmoe.ops.triton.tiles import map_tiles


def tiles_by_loop(counts, num_rows, height):
    """(expert, first row, number of rows) of every tile; expert E has the rows that are left."""
    table, first = [], 0
    for expert, count in enumerate([*counts, num_rows - sum(counts)]):
        for row in range(0, count, height):
            table.append([expert, first + row, min(height, count - row)])
        first += count
    return table


@settings(deadline=None, max_examples=40)
@given(
    counts=st.lists(st.integers(0, 70), min_size=1, max_size=6),
    unused=st.integers(0, 40),
    height=st.sampled_from([16, 32, 64]),
)
@example(counts=[0, 0, 0], unused=0, height=16)
@example(counts=[64, 0, 1], unused=0, height=64)
@example(counts=[1] * 6, unused=1, height=64)  # as many tiles as there can be
@example(counts=[16 * tiles.TILES_AT_ONCE + 1, 5], unused=16 * tiles.TILES_AT_ONCE, height=16)
def test_tiles_equal_a_loop_over_experts(counts, unused, height, device):
    num_rows = sum(counts) + unused
    found = map_tiles(torch.tensor(counts, device=device), num_rows, height)
    used = [entry for entry in found.tile.tolist() if entry[2] > 0]
    assert used == tiles_by_loop(counts, num_rows, height)
    assert found.tile.shape[0] == found.num_tiles == num_rows // height + len(counts) + 1
    assert found.num_experts == len(counts)
    assert found.start.tolist() == [sum(counts[:e]) for e in range(len(counts) + 1)]


@pytest.mark.parametrize(
    ("num_rows", "num_experts", "expected"),
    [(0, 8, 16), (100, 8, 16), (128, 8, 16), (129, 8, 32), (600, 8, 128), (10**6, 8, 128)],
)
def test_tiles_are_as_high_as_the_mean_load(num_rows, num_experts, expected, device):
    del device
    assert rows_per_tile(torch.bfloat16, num_rows, num_experts) == expected
    assert rows_per_tile(torch.float32, num_rows, num_experts) == min(expected, 64)


def test_other_dtypes_are_refused(device):
    del device
    with pytest.raises(ConfigError, match=r"dtype must be one of .*, but is torch.float64"):
        check_dtype(torch.float64)
