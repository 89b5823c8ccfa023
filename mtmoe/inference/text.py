"""Lines in, lines out: nothing inside a line may make a second one."""

from __future__ import annotations

import logging
import select
from collections.abc import Iterator
from typing import IO

from mtmoe.errors import DataError
from mtmoe.files import decode_line

log = logging.getLogger(__name__)
BLOCK_BYTES = 1 << 16
PATIENCE_SECONDS = 0.05  # long enough for a busy writer to refill the pipe

_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]
_CLEAN = dict.fromkeys(_CONTROLS, " ") | {0xFEFF: None}


def clean_line(line: str) -> str:
    """`line` with spaces for control characters and line separators, without byte order marks."""
    return line.translate(_CLEAN).strip()


def read_chunks(stream: IO[bytes], name: str, max_lines: int) -> Iterator[list[str]]:
    """The lines of `stream` without their ends, in lists of at most `max_lines`.

    A list is handed out as soon as no more lines wait to be read, so that a slow writer gets its
    answers. Only "\\n" (or "\\r\\n") ends a line.

    Args:
        name: stands in the warning.

    Bytes that are not UTF-8 read as U+FFFD, and a warning names the line.
    """
    number = 0
    for arrived in _arrived_lines(stream, max_lines):
        yield [_decode(raw, name, number + n) for n, raw in enumerate(arrived, 1)]
        number += len(arrived)


def _decode(raw: bytes, name: str, number: int) -> str:
    try:
        return decode_line(raw, name, number)
    except DataError as error:
        log.warning("%s Reading U+FFFD instead.", error)
        return raw.removesuffix(b"\r").decode("utf-8", "replace")


def _arrived_lines(stream: IO[bytes], max_lines: int) -> Iterator[list[bytes]]:
    lines: list[bytes] = []
    rest = b""  # of a line whose end has not arrived
    while block := stream.read1(BLOCK_BYTES):  # type: ignore[attr-defined]
        *whole, rest = (rest + block).split(b"\n")
        lines += whole
        while len(lines) >= max_lines:
            yield lines[:max_lines]
            lines = lines[max_lines:]
        if lines and not _more_waits(stream):
            yield lines
            lines = []
    if rest:
        lines.append(rest)
    if lines:
        yield lines


def _more_waits(stream: IO[bytes]) -> bool:
    """Whether reading gives something, or the end, soon; a file always does."""
    try:
        return bool(select.select([stream], [], [], PATIENCE_SECONDS)[0])
    except (OSError, ValueError):  # in memory, or of a kind that cannot wait
        return True
