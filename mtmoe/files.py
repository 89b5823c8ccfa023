"""Files: checked before work begins, written whole or not at all, read as UTF-8."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from mtmoe.errors import ConfigError, DataError, MtmoeError


def take_lock(handle: int) -> bool:
    """Lock an open file or folder until it is closed; False: another process has it.

    A file system without locks lets everybody in.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def check_input(name: str, path: str | Path, error: type[MtmoeError] = DataError) -> None:
    """Refuse what cannot be read as a file; pipes and devices can.

    Args:
        name: what the file is, or its option; begins the sentence.

    Raises:
        MtmoeError: of the kind `error`; the path is empty, a folder, or not there.
    """
    if not str(path):
        raise error(f"{name} must be a file, but its name is empty. Give the path of a file.")
    if Path(path).is_dir():
        raise error(f"{name} must be a file, but is a folder: {path}. Name a file in it.")
    if not Path(path).exists():
        raise error(f"{name} must be a file, but is not there: {path}. Check the path.")


def check_output(
    option: str, path: str | Path | None, inputs: Iterable[str | Path | None] = ()
) -> None:
    """Refuse, before any work is done, a file that could not or must not be written at the end.

    Args:
        inputs: files and folders that are read.

    Raises:
        ConfigError: the path is empty, a folder, in a folder that is not there, or an input.
    """
    if path is None:
        return
    if not str(path):
        raise ConfigError(f"{option} must be a file, but its name is empty. Give a file name.")
    if Path(path).is_dir():
        raise ConfigError(f"{option} must be a file, but is a folder: {path}. Add a file name.")
    if not os.path.isdir(os.path.dirname(os.path.realpath(path))):
        raise ConfigError(
            f"{option} must lie in a folder that is there, but is {path}. Make the folder first."
        )
    if any(_would_replace(path, source) for source in inputs):
        raise ConfigError(
            f"{option} must be another file than what is read, but is {path}. Give another name."
        )


def check_checkpoint_output(
    option: str, path: str | Path, inputs: Iterable[str | Path | None]
) -> None:
    """As `check_output`, for a file that is written in any order and read again.

    Raises:
        ConfigError: the path is also that of a device or a pipe.
    """
    check_output(option, path, inputs)
    if not is_replaceable(path):
        raise ConfigError(
            f"{option} must be a file, but is a device or a pipe: {path}. Give a file name."
        )


def check_two_files(option: str, path: str | Path | None, other: str, taken: str | Path) -> None:
    """Refuse two outputs of one name: the second would replace the first.

    Raises:
        ConfigError: `path`, of `option`, is `taken`, of the option `other`.
    """
    if path is not None and os.path.realpath(path) == os.path.realpath(taken):
        raise ConfigError(
            f"{option} must be another file than {other}, but both are {taken}. Rename one."
        )


def _would_replace(path: str | Path, source: str | Path | None) -> bool:
    """Whether the file at `path` is `source`, or in it; devices and pipes are never replaced."""
    is_there = os.path.isfile(path) and source is not None and str(source) != ""
    return is_there and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(str(source)))


def check_folder(option: str, path: str | Path) -> None:
    """Refuse a folder that is not there and cannot be made.

    Raises:
        ConfigError: the path is empty, or it or a part of it is a file.
    """
    if not str(path):
        raise ConfigError(f"{option} must be a folder, but its name is empty. Give its path.")
    there = next((part for part in (Path(path), *Path(path).parents) if part.exists()), None)
    if there is not None and not there.is_dir():
        raise ConfigError(f"{option} must be a folder, but {there} is a file. Give another path.")


@contextlib.contextmanager
def open_atomic(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open `path` for writing so that it appears under its name only when complete.

    A link stays a link: the file that it leads to is replaced. What is no regular file (a device, a
    pipe) is never replaced, but written as it comes; so is the file that standard output goes to.

    Args:
        mode: "w" for UTF-8 text with "\\n" line ends, "wb" for bytes.

    Raises:
        OSError: the disk is full or the folder is not writable; a regular file is then as before.
    """
    encoding = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    target = _written_as_it_comes(path)
    if target is not None:
        with open(target, mode, **encoding) as file:  # type: ignore[call-overload]
            yield file
        return
    path = Path(os.path.realpath(path))
    name = part_of(path)  # known before it is there: a signal in between leaves nothing
    try:
        with open(name, mode.replace("w", "x"), **encoding) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def part_of(path: Path) -> Path:
    """A new name beside `path`, for what becomes `path` when it is complete."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def is_replaceable(path: str | Path) -> bool:
    """Whether `open_atomic` replaces what is at `path`, if something is, when all is written."""
    path = Path(path)
    return not path.exists() or (path.is_file() and _stream_to(path) is None)


def _written_as_it_comes(path: str | Path) -> str | Path | int | None:
    """What to open if `path` must not be replaced: itself, or a descriptor; None if it may be."""
    if is_replaceable(path):
        return None
    descriptor = _stream_to(path)  # /dev/stdout: opening it anew would empty a file
    if descriptor is None:
        return path
    sys.stdout.flush()
    return os.dup(descriptor)


def _stream_to(path: str | Path) -> int | None:
    """The descriptor of standard output or standard error, if it leads to `path`."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return descriptor
    return None


def sha256(path: str | Path) -> str:
    """The SHA-256 checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file, without their ends; only "\\n" (or "\\r\\n") ends a line.

    Raises:
        DataError: the file is missing, a folder, or holds bytes that are not UTF-8.
    """
    check_input("text", path)
    return decode_lines(Path(path).read_bytes(), str(path))


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
