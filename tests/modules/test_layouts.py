"""The network on any layout of ranks equals one process: loss, norm, gradients, in float64."""

from __future__ import annotations

import pytest

from mtmoe.config import CheckpointActivations, Zero
from tests.modules.layout_cells import (
    LAYOUTS,
    Cell,
    covering_cells,
    every_cell,
    pairs_of,
    run_cells,
)

NONE, FULL, KEEP = CheckpointActivations
QUICK = [
    Cell((1, 2, 1), Zero.none, False, NONE, "rts"),
    Cell((2, 1, 1), Zero.parameters, False, FULL, "dropless"),
    Cell((1, 1, 2), Zero.none, False, NONE, "dropless"),
    Cell((1, 2, 2), Zero.gradients, True, KEEP, "rts"),
    Cell((2, 2, 1), Zero.parameters, False, FULL, "rts"),  # hung, with gathers ahead of time
]
DEDUPLICATING = [  # the one layout of the six on which tokens are deduplicated
    Cell((1, 2, 2), Zero.none, True, FULL, "dropless"),
    Cell((1, 2, 2), Zero.parameters, True, NONE, "dropless"),
    Cell((1, 2, 2), Zero.parameters, True, FULL, "rts"),
    Cell((1, 2, 2), Zero.gradients, True, NONE, "rts"),
]
EIGHT = [Cell((2, 2, 2), Zero.parameters, True, KEEP, "rts")]


@pytest.mark.parametrize("cell", QUICK, ids=lambda cell: "x".join(map(str, cell.sizes)))
def test_layout_equals_one_process(cell):
    run_cells([cell], num_updates=3)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", LAYOUTS)
def test_each_pair_of_settings_equals_one_process(sizes):
    cells = [cell for cell in [*covering_cells(), *DEDUPLICATING] if cell.sizes == sizes]
    run_cells(cells)


@pytest.mark.long
def test_eight_ranks_equal_one_process():
    run_cells(EIGHT)


@pytest.mark.long
@pytest.mark.parametrize("sizes", LAYOUTS)
def test_every_combination_of_settings_equals_one_process(sizes):
    run_cells(every_cell(sizes))


def test_the_chosen_cells_cover_each_pair_of_settings():
    everything = [cell for sizes in LAYOUTS for cell in every_cell(sizes)]
    assert len(everything) == 6 * 3 * 2 * 3 * 2
    assert pairs_of(covering_cells()) == pairs_of(everything)
