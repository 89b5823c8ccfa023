"""Files that are whole or absent: written beside their final name, flushed to disk, renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mtmoe.errors import DataError


@contextlib.contextmanager
def open_atomic(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open `path` for writing so that it appears under its name only when complete.

    Args:
        mode: "w" for UTF-8 text with "\\n" line ends, "wb" for bytes.

    Raises:
        OSError: the disk is full or the folder is not writable; `path` is then as before.
    """
    path = Path(path)
    encoding = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with open(handle, mode, **encoding) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp makes files that only their owner reads
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def sha256(path: str | Path) -> str:
    """The SHA-256 checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file, without their ends; only "\\n" (or "\\r\\n") ends a line.

    Raises:
        DataError: the file is missing, is no file, or holds bytes that are not UTF-8.
    """
    try:
        data = Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise DataError(
            f"text file must exist, but is not there: {path}. Check the path."
        ) from None
    return decode_lines(data, str(path))


def decode_lines(data: bytes, name: str) -> list[str]:
    """Split `data` into lines of text; `name` stands in the error.

    Raises:
        DataError: a line is not UTF-8; names the line, counted from 1.
    """
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()  # the end of the last line is not the start of another one
    return [decode_line(line, name, number) for number, line in enumerate(lines, 1)]


def decode_line(line: bytes, name: str, number: int) -> str:
    """One line of `name` as text, without its carriage return.

    Raises:
        DataError: it is not UTF-8.
    """
    try:
        return line.removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"text must be UTF-8, but {name} line {number} has the byte "
            f"0x{line[error.start]:02x} at column {error.start + 1}. "
            "Convert the file, e.g. by iconv."
        ) from None
