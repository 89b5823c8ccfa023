"""Big files in blocks of whole lines, so that all cores work on one file in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

BLOCK_BYTES = 1 << 20  # of text


def cut(path: Path, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, int]]:
    """(start, bytes) of blocks of whole lines, each of about `block_bytes`."""
    size, start = path.stat().st_size, 0
    with path.open("rb") as file:
        while start < size:
            file.seek(start + block_bytes)
            file.readline()
            end = min(file.tell(), size)
            yield start, end - start
            start = end


def read_block(path: Path, start: int, size: int) -> list[bytes]:
    """The lines of a block that `cut` gave, without their ends."""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size).removesuffix(b"\n").split(b"\n")
