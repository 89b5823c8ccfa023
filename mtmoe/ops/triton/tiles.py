"""Which tile of rows belongs to which expert, worked out on the device.

Rows are sorted by expert; how many each has is known to the GPU only. Instead of waiting for these
numbers, or of padding each expert's rows to whole tiles, the grid is as large as any routing could
need, and a table tells each program its expert and its rows: indices are padded, never tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from mtmoe.ops.triton.launch import launch

TILES_AT_ONCE = 128  # table entries that a program writes in one step


@dataclass(frozen=True)
class TileMap:
    """The row tiles of all experts, then those of the rows that no expert computes.

    M = R // rows_per_tile + E + 1 tiles are enough for any routing.
    """

    tile: Tensor  # (M, 3) int32: expert (E: none), first row, number of rows (0: an unused tile)
    start: Tensor  # (E + 1,) int32: first row of each expert; the last entry is counts.sum()
    rows_per_tile: int

    @property
    def num_tiles(self) -> int:
        """M."""
        return self.tile.shape[0]

    @property
    def num_experts(self) -> int:
        """E."""
        return self.start.shape[0] - 1


def map_tiles(counts: Tensor, num_rows: int, rows_per_tile: int) -> TileMap:
    """Cut the rows of each expert into tiles; a tile never spans two experts.

    Args:
        counts: (E,) int64 rows of each expert, on the device of the rows.
        num_rows: R, at least counts.sum().
    """
    E = counts.shape[0]
    num_tiles = num_rows // rows_per_tile + E + 1
    tile = torch.empty(num_tiles, 3, dtype=torch.int32, device=counts.device)
    start = torch.empty(E + 1, dtype=torch.int32, device=counts.device)
    launch(
        tile_kernel,
        (E + 1,),
        counts.contiguous(),
        tile,
        start,
        E,
        num_rows,
        num_tiles,
        ROWS=rows_per_tile,
        EXPERTS=triton.next_power_of_2(E),
        AT_ONCE=TILES_AT_ONCE,
    )
    return TileMap(tile, start, rows_per_tile)


@triton.jit(do_not_specialize=["R", "num_tiles"])  # type: ignore[untyped-decorator]
def tile_kernel(  # noqa: PLR0913
    counts_ptr: tl.tensor,
    tile_ptr: tl.tensor,
    start_ptr: tl.tensor,
    E: tl.tensor,
    R: tl.tensor,
    num_tiles: tl.tensor,
    ROWS: tl.constexpr,
    EXPERTS: tl.constexpr,
    AT_ONCE: tl.constexpr,
) -> None:
    """Program e writes the tiles of expert e; program E those of the rows without an expert.

    Each program sums up the experts before its own: E numbers from the cache. Program E also owns
    the rest of the table, whose tiles begin behind the last row and thus have 0 rows.
    """
    expert = tl.program_id(0)
    other = tl.arange(0, EXPERTS)
    count = tl.load(counts_ptr + other, mask=other < E, other=0).to(tl.int32)
    is_before = other < expert
    first_row = tl.sum(tl.where(is_before, count, 0), axis=0)
    first_tile = tl.sum(tl.where(is_before, tl.cdiv(count, ROWS), 0), axis=0)
    own_rows = tl.sum(tl.where(other == expert, count, 0), axis=0)
    end_row = tl.where(expert < E, first_row + own_rows, R)
    end_tile = tl.where(expert < E, first_tile + tl.cdiv(own_rows, ROWS), num_tiles)
    tl.store(start_ptr + expert, first_row)
    for begin in range(first_tile, end_tile, AT_ONCE):
        tile = begin + tl.arange(0, AT_ONCE)
        row = first_row + (tile - first_tile) * ROWS
        num_rows = tl.minimum(tl.maximum(end_row - row, 0), ROWS)
        is_own = tile < end_tile
        tl.store(tile_ptr + tile * 3, expert, mask=is_own)
        tl.store(tile_ptr + tile * 3 + 1, row, mask=is_own)
        tl.store(tile_ptr + tile * 3 + 2, num_rows, mask=is_own)


@triton.jit  # type: ignore[untyped-decorator]
def load_tile(tile_ptr: tl.tensor, tile: tl.tensor) -> tl.tuple:
    """A tile's expert, first row (int64, for offsets beyond 2**31), and number of rows."""
    entry_ptr = tile_ptr + tile * 3
    expert = tl.load(entry_ptr)
    first_row = tl.load(entry_ptr + 1).to(tl.int64)
    num_rows = tl.load(entry_ptr + 2)
    return expert, first_row, num_rows
