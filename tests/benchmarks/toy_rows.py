"""Rows of a benchmark that behave well or badly; their workers import no torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.worker import Call, NotRunnable


def build_writer(options: dict[str, Any]) -> dict[str, Call]:
    """Writes its process's number into a file each time it runs, and chats on standard output."""

    def write() -> int:
        sys.stdout.write("chatter of a library\n")
        with Path(options["file"]).open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        return os.getpid()

    return {"write": Call(write)}


def build_failing(options: dict[str, Any]) -> dict[str, Call]:
    """Raises when it runs."""

    def fail() -> None:
        raise ValueError("two\nlines")

    return {"write": Call(fail)}


def build_dying(options: dict[str, Any]) -> dict[str, Call]:
    """Ends its process when it runs."""

    def die() -> None:
        sys.stderr.write("out of everything\n")
        sys.stderr.flush()
        os._exit(3)

    return {"write": Call(die)}


def build_refusing(options: dict[str, Any]) -> dict[str, Call]:
    """Cannot run at all."""
    raise NotRunnable("top-3 is not for me")


def build_spinning(options: dict[str, Any]) -> dict[str, Call]:
    """Keeps a thread busy after it ran."""
    import threading

    def spin() -> None:
        while True:
            pass

    return {"write": Call(lambda: threading.Thread(target=spin, daemon=True).start())}
