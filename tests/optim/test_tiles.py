"""Tiles cover every element once, in order, and are cut where vector instructions do not mind."""

from __future__ import annotations

import pytest
import torch

from mtmoe.optim.tiles import ALIGNMENT, Operand, Piece, cut_tiles


@pytest.mark.parametrize("tile", [64, 100, 250, 1000, 4096, 10**6])
@pytest.mark.parametrize(
    "sizes", [[], [0], [1], [64, 64], [63, 1, 500, 0, 7, 1999], [5000], [900, 200, 900]]
)
def test_tiles_cover_every_element_once(sizes, tile):
    found = [[] for _ in sizes]
    for pieces in cut_tiles(sizes, tile):
        assert 0 < sum(piece.stop - piece.start for piece in pieces) <= tile
        for piece in pieces:
            assert piece.start < piece.stop
            assert piece.start % ALIGNMENT == 0
            found[piece.index] += range(piece.start, piece.stop)
    assert found == [list(range(size)) for size in sizes]


def test_small_tensors_travel_together_and_large_ones_are_cut():
    assert list(cut_tiles([10, 20, 300], 128)) == [
        [Piece(0, 0, 10), Piece(1, 0, 20), Piece(2, 0, 64)],
        [Piece(2, 64, 192)],
        [Piece(2, 192, 300)],
    ]


def test_an_operand_is_worked_on_in_place_or_in_a_buffer():
    tensors = [torch.arange(4.0), torch.arange(4.0).half()]
    pieces = [Piece(0, 1, 3), Piece(1, 0, 2)]
    assert Operand(tensors).load(pieces)[0].data_ptr() == tensors[0][1:].data_ptr()
    operand = Operand(tensors, torch.zeros(4))
    loaded = operand.load(pieces)
    assert torch.equal(operand.buffer, torch.tensor([1.0, 2.0, 0.0, 1.0]))
    for piece in loaded:
        piece += 10
    operand.store(pieces, loaded)
    assert tensors[0].tolist() == [0, 11, 12, 3]
    assert tensors[1].tolist() == [10, 11, 2, 3]
    Operand(tensors, torch.zeros(4), is_result=False).store(pieces, [torch.ones(2)] * 2)
    assert tensors[0].tolist() == [0, 11, 12, 3], "gradients do not come back"
