"""Lines in, lines out: nothing inside a line may make a second one."""

from __future__ import annotations

import hashlib
import logging
import select
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

from mtmoe.errors import DataError
from mtmoe.files import decode_line

log = logging.getLogger(__name__)
BLOCK_BYTES = 1 << 16
PATIENCE_SECONDS = 0.05  # long enough for a busy writer to refill the pipe
MAX_LINE_BYTES = 1 << 20  # of a line; a longer one is never held in memory
CHUNK_BYTES = 1 << 20  # that are translated together, or little more
FIRST_CHUNK, CHUNK_LINES = 256, 2048  # lines that are translated together at first, and at most
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]
_SURROGATES = range(0xD800, 0xE000)  # lone ones, which JSON can hold and UTF-8 cannot
_CLEAN = dict.fromkeys(_CONTROLS, " ") | dict.fromkeys(_SURROGATES, "\ufffd") | {0xFEFF: None}


def clean_line(line: str) -> str:
    """`line` with spaces for control characters and line separators, without byte order marks.

    Lone surrogates become U+FFFD.
    """
    return line.translate(_CLEAN).strip()


@dataclass(frozen=True)
class RawLine:
    """A line as it was read."""

    data: bytes  # without its "\n"; empty if the line is oversized
    source: str  # the file's name, in warnings
    place: int  # in its file, from 1
    number: int  # in the run, from 1
    size: int  # bytes

    @property
    def name(self) -> str:
        """Where the line is, in warnings."""
        return f"{self.source} line {self.place}"

    @property
    def is_oversized(self) -> bool:
        """Whether it is longer than `MAX_LINE_BYTES`, and was not kept."""
        return self.size > MAX_LINE_BYTES

    def decode(self) -> str:
        """The text; bytes that are not UTF-8 read as U+FFFD, and a warning names the line."""
        try:
            return decode_line(self.data, self.source, self.place)
        except DataError as error:
            log.warning("%s Reading U+FFFD instead.", error)
            return self.data.removesuffix(b"\r").decode("utf-8", "replace")


@dataclass(frozen=True)
class Chunk:
    """Lines that are translated together."""

    lines: list[RawLine]
    num_bytes: int  # of all lines so far, with their ends
    digest: str  # SHA-256 of all lines so far


class _Waiting:
    """Lines that wait to be translated together."""

    def __init__(self) -> None:
        self.lines: list[RawLine] = []
        self.num_lines = self.num_bytes = self._bytes_before = 0
        self._digest = hashlib.sha256()

    def add(self, source: str, place: int, data: bytes, size: int) -> None:
        self.num_lines += 1
        self.num_bytes += size + 1
        self._digest.update(b"%d\n%b" % (size, data))
        if place == 1:
            data = data.removeprefix(BYTE_ORDER_MARK)
        self.lines.append(RawLine(data, source, place, self.num_lines, size))

    @property
    def is_full(self) -> bool:
        """A function of the lines alone, so that a run that goes on makes the same chunks."""
        num_before = self.num_lines - len(self.lines)
        most_lines = min(max(num_before, FIRST_CHUNK), CHUNK_LINES)
        return len(self.lines) >= most_lines or self.num_bytes - self._bytes_before >= CHUNK_BYTES

    def take(self) -> Chunk:
        lines, self.lines, self._bytes_before = self.lines, [], self.num_bytes
        return Chunk(lines, self.num_bytes, self._digest.hexdigest())


def read_chunks(sources: Iterable[tuple[str, IO[bytes]]], is_prompt: bool) -> Iterator[Chunk]:
    """The lines of files, one after the other, in chunks.

    Only "\\n" (or "\\r\\n") ends a line; the last of a file may lack it. A chunk has `FIRST_CHUNK`
    lines at first, so that answers come soon, then as many as came before it, at most
    `CHUNK_LINES`, and about `CHUNK_BYTES`. What is held in memory does not grow with the files.

    Args:
        sources: name and stream of each file.
        is_prompt: hand out the lines that are there as soon as no more wait to be read, so that
            whoever writes them slowly gets answers.
    """
    waiting = _Waiting()
    for name, stream in sources:
        place = 0
        for arrived in _arrivals(stream, is_prompt):
            if arrived is not None:
                place += 1
                waiting.add(name, place, *arrived)
            if waiting.is_full or (arrived is None and waiting.lines):
                yield waiting.take()
    if waiting.lines:
        yield waiting.take()


def _arrivals(stream: IO[bytes], is_prompt: bool) -> Iterator[tuple[bytes, int] | None]:
    """Each line and its size, without its content if it is oversized; None: no more wait."""
    data, size = bytearray(), 0  # of the line whose end has not arrived
    while True:
        if is_prompt and not _more_waits(stream):
            yield None
        block = stream.read1(BLOCK_BYTES)  # type: ignore[attr-defined]
        if not block:
            break
        parts = block.split(b"\n")
        for n, part in enumerate(parts, 1):
            size += len(part)
            data += part if size <= MAX_LINE_BYTES else b""
            if n < len(parts):
                yield _whole(data, size)
                data, size = bytearray(), 0
    if size:
        yield _whole(data, size)


def _whole(data: bytearray, size: int) -> tuple[bytes, int]:
    return bytes(data) if size <= MAX_LINE_BYTES else b"", size


def _more_waits(stream: IO[bytes]) -> bool:
    """Whether reading gives something, or the end, soon; a file always does."""
    try:
        return bool(select.select([stream], [], [], PATIENCE_SECONDS)[0])
    except (OSError, ValueError):  # in memory, or of a kind that cannot wait
        return True
