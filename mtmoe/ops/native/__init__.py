"""Loops of translation in C, for which PyTorch has no fast operation on a CPU.

The sources are compiled when they are first needed, by the machine's own C compiler, into the
user's cache folder; that takes seconds. Without a compiler, or on another kind of machine, nothing
is lost but speed: whoever asks for `library` has a definition in PyTorch to fall back to.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = tuple(Path(__file__).with_name(name) for name in ("decode.c", "products.c"))
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC")
LANES = 16  # numbers that it takes together; rows of attention must be a multiple
MOST_LANES = 64 * LANES  # that such a row may have
COMPILE_SECONDS = 120

log = logging.getLogger(__name__)

Steps = ctypes.c_int64 * 3


class AttentionShape(ctypes.Structure):
    """`Shape` in `decode.c`; steps are strides in elements."""

    _fields_ = (
        ("sentences", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("queries", ctypes.c_int64),
        ("positions", ctypes.c_int64),
        ("head_dim", ctypes.c_int64),
        ("query", Steps),  # between sentences, heads, queries
        ("key", Steps),  # between sentences, heads, positions
        ("value", Steps),
        ("visible", Steps),  # between sentences, queries, positions
        ("is_bfloat16", ctypes.c_int32),
        ("visible_kind", ctypes.c_int32),
        ("scale", ctypes.c_float),
    )


class PackedMap(ctypes.Structure):
    """`Linear` in `products.c`."""

    _fields_ = (
        ("inputs", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("words", ctypes.c_int64),
        ("kind", ctypes.c_int32),
        ("has_relu", ctypes.c_int32),
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("shift", ctypes.c_void_p),
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None: they cannot be had here."""
    compiler = shutil.which("cc")
    if compiler is None:
        log.info("No C compiler (cc) is here: translation on a CPU is slower. Install gcc.")
        return None
    try:
        found = _load(compiler)
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).splitlines()
        detail = next(iter(lines), type(error).__name__)
        names = " and ".join(map(str, SOURCES))
        log.warning("Translation on a CPU is slower: %s could not be used (%s).", names, detail)
        return None
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    found.attend.argtypes = [ctypes.POINTER(AttentionShape), *[pointer] * 5]
    found.products.restype = ctypes.c_int32
    found.multiply.argtypes = [pointer, pointer, count, pointer, pointer]
    found.log_sums.argtypes = [pointer, count, count, pointer]
    found.log_sums.restype = None
    found.round_rows.argtypes = [pointer, count, count, pointer, pointer]
    found.round_rows.restype = None
    found.scale_rows.argtypes = [pointer, count, count, pointer, pointer, ctypes.c_int32]
    found.scale_rows.restype = None
    return found


def _load(compiler: str) -> ctypes.CDLL:
    name = f"decode-{_fingerprint(compiler)}.so"
    folder = _cache_folder()
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="mtmoe-") as private:
            return ctypes.CDLL(str(_compile(compiler, Path(private) / name)))
    path = folder / name
    try:
        return ctypes.CDLL(str(path))
    except OSError:  # it is not there, or of another C library
        return ctypes.CDLL(str(_compile(compiler, path)))


def _compile(compiler: str, path: Path) -> Path:
    handle, partial = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    try:
        command = [compiler, *FLAGS, *map(str, SOURCES), "-o", partial, "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return path


def _fingerprint(compiler: str) -> str:
    """Of all that the compiled file depends on: the sources, the compiler, the processor."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for source in SOURCES:
        digest.update(source.read_bytes())
    status = os.stat(os.path.realpath(compiler))
    digest.update(f"{os.path.realpath(compiler)} {status.st_size} {status.st_mtime_ns}".encode())
    digest.update(_processor().encode())
    return digest.hexdigest()[:32]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.platform()
    kept = ("model name", "flags", "Features", "CPU part")
    return platform.machine() + "".join(sorted({x for x in lines if x.startswith(kept)}))


def _cache_folder() -> Path | None:
    """A folder that nobody else can write to, as code is loaded from it; None: there is none."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(home) / "mtmoe"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return None
    is_ours = status.st_uid == os.geteuid() and not status.st_mode & 0o022
    return folder if is_ours and os.access(folder, os.W_OK) else None
