"""Lines of files, plain or packed by gzip, bzip2, xz or Zstandard, whatever stands in them.

Memory is bounded: a line of more than MAX_LINE_BYTES is passed over, never held. What grows by more
than MAX_RATIO when it is unpacked is no text, and is refused before it fills a disk or an hour.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from mtmoe.errors import DataError

MAX_LINE_BYTES = 1 << 20
MAX_RATIO = 200  # of unpacked to packed bytes; text seldom exceeds 20
FREE_BYTES = 1 << 24  # so many may come out whatever the ratio
MAX_INVALID_SHARE = 0.01  # more lines that are not UTF-8 are another encoding, not accidents
TOO_LONG, NOT_UTF8 = "too_long_line", "not_utf8"
DAMAGE = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)


class Line(NamedTuple):
    """The text of a line without its end, or why there is none."""

    text: str
    fault: str = ""  # "", TOO_LONG or NOT_UTF8


def open_packed(path: Path) -> IO[bytes]:
    """Open a file for reading; its name tells how it is packed."""
    openers: dict[str, Callable[[Path, str], object]] = {
        ".gz": gzip.open,
        ".bz2": bz2.open,
        ".xz": lzma.open,
        ".zst": _open_zstandard,
    }
    opener = openers.get(path.suffix, open)
    return cast(IO[bytes], opener(path, "rb"))


def _open_zstandard(path: Path, mode: str) -> IO[bytes]:
    import zstandard

    return io.BufferedReader(cast(io.RawIOBase, zstandard.open(path, mode)), 1 << 17)


@contextlib.contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn what the unpackers raise into a DataError that names the file."""
    try:
        yield
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name} must be whole, but is damaged: {reason}. Fetch it again."
        ) from None
    except Exception as error:
        # bz2 raises a bare OSError; the package of Zstandard may not be there to name its class
        is_bz2 = type(error) is OSError and error.errno is None
        if not is_bz2 and type(error).__name__ != "ZstdError":
            raise
        raise DataError(f"{name} must be whole, but is damaged: {error}. Fetch it again.") from None


class GuardedStream:
    """A binary stream that refuses to give much more than its packed size promises."""

    def __init__(self, stream: IO[bytes], name: str, packed_bytes: int) -> None:
        self.stream, self.name = stream, name
        self.limit = max(FREE_BYTES, MAX_RATIO * packed_bytes)
        self.num_read = 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        with readable(self.name):
            return self._count(self.stream.read(size))

    def readline(self, size: int) -> bytes:
        """At most `size` bytes, up to the end of the line."""
        with readable(self.name):
            return self._count(self.stream.readline(size))

    def _count(self, data: bytes) -> bytes:
        self.num_read += len(data)
        if self.num_read > self.limit:
            raise DataError(
                f"unpacked text must be at most {MAX_RATIO} times its packed size, but {self.name} "
                f"gives over {self.limit:,} bytes. It may be a bomb; unpack it yourself if not."
            )
        return data


class TextLines:
    """The lines of a stream, one at a time; counts those that are not UTF-8."""

    def __init__(self, stream: GuardedStream) -> None:
        self.stream = stream
        self.num_lines = 0
        self.invalid: Counter[str] = Counter()
        self.first_invalid = ""

    def __iter__(self) -> Iterator[Line]:
        while data := self.stream.readline(MAX_LINE_BYTES + 1):
            self.num_lines += 1
            if len(data) > MAX_LINE_BYTES:
                while data and not data.endswith(b"\n"):
                    data = self.stream.readline(MAX_LINE_BYTES)
                yield Line("", TOO_LONG)
            else:
                yield self._decode(data)
        self._check()

    def _decode(self, data: bytes) -> Line:
        try:
            return Line(data.removesuffix(b"\n").removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            self.invalid[NOT_UTF8] += 1
            self.first_invalid = self.first_invalid or (
                f"{self.stream.name} line {self.num_lines} has the byte "
                f"0x{data[error.start]:02x} at column {error.start + 1}"
            )
            return Line("", NOT_UTF8)

    def _check(self) -> None:
        if self.invalid[NOT_UTF8] > MAX_INVALID_SHARE * self.num_lines:
            raise DataError(
                f"text must be UTF-8, but {self.first_invalid}. Convert the file, e.g. by iconv."
            )


@contextlib.contextmanager
def open_lines(path: str | Path) -> Iterator[TextLines]:
    """The lines of a file, packed or not.

    Raises:
        DataError: while they are read, it turns out to be damaged, a bomb, or in another encoding
            than UTF-8 (over MAX_INVALID_SHARE of its lines).
    """
    path = Path(path)
    with open_packed(path) as stream:
        packed = path.stat().st_size
        plain = path.suffix not in (".gz", ".bz2", ".xz", ".zst")
        yield TextLines(GuardedStream(stream, str(path), 1 << 60 if plain else packed))
