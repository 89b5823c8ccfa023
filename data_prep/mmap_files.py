"""Token numbers in fairseq's mmap format, encoded on all cores, in bounded memory.

`X.bin` has the numbers of all sentences one after the other, `X.idx` their lengths and places. Text
is cut into blocks of lines; a process encodes a block, and the blocks are written in their order.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.blocks import cut, read_block
from data_prep.parallel import map_on_cores, num_cores
from mtmoe.files import open_atomic

EOS, UNK = 2, 3  # in fairseq's dictionary
MAGIC = b"MMIDIDX\x00\x00"
DTYPES = {np.dtype(np.uint16): 8, np.dtype(np.uint32): 9}  # fairseq's numbers for them
COPY_ROWS = 1 << 20


class Encoder(NamedTuple):
    """How text becomes numbers."""

    model: Path  # SentencePiece
    table: tuple[int, ...]  # SentencePiece's number of a piece -> fairseq's


class Block(NamedTuple):
    """Whole lines of a file."""

    encoder: Encoder
    path: Path
    start: int  # byte
    size: int  # bytes
    dtype: np.dtype[Any]


class Encoded(NamedTuple):
    """The sentences of a block."""

    numbers: bytes
    lengths: np.ndarray[Any, np.dtype[np.int32]]  # (sentences,)


def best_dtype(num_symbols: int) -> np.dtype[Any]:
    """The type in which fairseq writes numbers below `num_symbols`."""
    return np.dtype(np.uint16) if num_symbols < 65500 else np.dtype(np.uint32)


def encode_block(block: Block) -> Encoded:
    """The numbers of a block's lines; each line ends with EOS."""
    lines = [line.decode() for line in read_block(block.path, block.start, block.size)]
    model, table = _load(block.encoder)
    return encode_lines(model, table, lines, block.dtype)


@functools.lru_cache(maxsize=4)
def _load(encoder: Encoder) -> tuple[Any, np.ndarray[Any, Any]]:
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_file=str(encoder.model)), np.array(encoder.table)


def encode_lines(
    model: Any, table: np.ndarray[Any, Any], lines: list[str], dtype: np.dtype[Any]
) -> Encoded:
    """The numbers of `lines`.

    Args:
        table: (pieces,) fairseq's number of each piece.
    """
    pieces = model.encode(lines)
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces)) + 1
    ends = np.cumsum(lengths)
    numbers = np.full(int(ends[-1]), EOS, dtype)
    is_piece = np.ones(len(numbers), bool)
    is_piece[ends - 1] = False
    flat = np.fromiter(chain.from_iterable(pieces), np.int64, len(numbers) - len(pieces))
    numbers[is_piece] = table[flat]
    return Encoded(numbers.tobytes(), lengths.astype(np.int32))


def write_encoded(prefix: Path, parts: Iterable[Encoded], dtype: np.dtype[Any]) -> tuple[int, int]:
    """Write `PREFIX.bin` and `PREFIX.idx`, each whole or not at all.

    Returns:
        The numbers of sentences and of tokens.
    """
    lengths: list[np.ndarray[Any, np.dtype[np.int32]]] = []
    with open_atomic(f"{prefix}.bin", "wb") as file:
        for part in parts:
            file.write(part.numbers)
            lengths.append(part.lengths)
    sizes = np.concatenate([np.zeros(0, np.int32), *lengths])  # 4 bytes a sentence
    with open_atomic(f"{prefix}.idx", "wb") as file:
        file.write(MAGIC + struct.pack("<QBQ", 1, DTYPES[dtype], len(sizes)))
        file.write(sizes.tobytes())
        start = 0
        for at in range(0, len(sizes), COPY_ROWS):
            part_sizes = sizes[at : at + COPY_ROWS].astype(np.int64)
            ends = start + np.cumsum(part_sizes)
            file.write(((ends - part_sizes) * dtype.itemsize).tobytes())
            start = int(ends[-1])
    return len(sizes), int(sizes.sum(dtype=np.int64))


def encode_files(
    encoder: Encoder, files: list[tuple[Path, Path]], num_symbols: int
) -> Iterator[tuple[int, int]]:
    """Encode each (text, prefix); yields the numbers of sentences and tokens, in order."""
    dtype = best_dtype(num_symbols)
    cuts = [list(cut(text)) for text, _ in files]
    blocks = (
        Block(encoder, text, start, size, dtype)
        for (text, _), places in zip(files, cuts, strict=True)
        for start, size in places
    )
    encoded = map_on_cores(encode_block, blocks, "binarise", num_waiting=2 * num_cores())
    for (_, prefix), places in zip(files, cuts, strict=True):
        yield write_encoded(prefix, (next(encoded) for _ in places), dtype)


def write_mmap(prefix: Path, sentences: list[list[int]], num_symbols: int) -> None:
    """Write sentences that are numbers already, each with its EOS."""
    dtype = best_dtype(num_symbols)
    numbers = np.array(list(chain.from_iterable(sentences)), dtype)
    lengths = np.array([len(sentence) for sentence in sentences], np.int32)
    write_encoded(prefix, [Encoded(numbers.tobytes(), lengths)], dtype)
