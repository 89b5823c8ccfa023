"""Debian packages: an archive of `ar`, whose member `data.tar` has the files (deb(5))."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from mtmoe.errors import DataError


def _unpack_zstandard(file: Any) -> Any:
    import zstandard

    return zstandard.ZstdDecompressor().stream_reader(file)


def _unpack_gzip(file: Any) -> Any:
    return gzip.GzipFile(fileobj=file)


MAGIC = b"!<arch>\n"
HEADER_BYTES = 60
UNPACKERS: dict[str, Callable[[Any], Any]] = {
    "data.tar": io.BufferedReader,
    "data.tar.gz": _unpack_gzip,
    "data.tar.bz2": bz2.BZ2File,
    "data.tar.xz": lzma.LZMAFile,
    "data.tar.zst": _unpack_zstandard,
}


class Window(io.RawIOBase):
    """The next `size` bytes of a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.left = file, size

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; the number of bytes."""
        data = self.file.read(min(len(buffer), self.left))
        self.left -= len(data)
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def open_data(path: Path) -> Iterator[IO[bytes]]:
    """The unpacked `data.tar` of a package, to be read once from the start.

    Raises:
        DataError: the file is no package.
    """
    with path.open("rb") as file:
        is_package = file.read(len(MAGIC)) == MAGIC
        while is_package and len(header := file.read(HEADER_BYTES)) == HEADER_BYTES:
            name = header[:16].decode("ascii", "replace").rstrip().rstrip("/")
            size = header[48:58].decode("ascii", "replace").strip()
            if not size.isdecimal():
                break
            if name in UNPACKERS:
                with UNPACKERS[name](Window(file, int(size))) as stream:
                    yield cast(IO[bytes], stream)
                return
            file.seek(int(size) + int(size) % 2, io.SEEK_CUR)
    raise DataError(f"a Debian package must hold data.tar, but {path} does not. Fetch it again.")
