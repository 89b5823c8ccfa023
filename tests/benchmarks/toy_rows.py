"""Rows of a benchmark that behave well or badly; their workers import no torch."""

from __future__ import annotations

import os
import sys
import time
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

    return {"write": Call(write), "write_twice": Call(lambda: [write(), write()])}


def build_forking(options: dict[str, Any]) -> dict[str, Call]:
    """Has a child that holds 100 MB and goes on living."""

    def fork() -> None:
        told, tells = os.pipe()
        waits, until = os.pipe()
        if os.fork() == 0:
            os.close(until)
            held = bytearray(b"x") * 100_000_000
            os.write(tells, held[:1])
            os.read(waits, 1)  # until the parent ends
            os._exit(0)
        os.read(told, 1)

    return {"fork": Call(fork)}


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


def build_diligent(options: dict[str, Any]) -> dict[str, Call]:
    """Gives 48 tokens, in batches of 16 faster than in batches of 8."""
    return {
        "beam 1, batch 8": Call(lambda: (time.sleep(0.05), 48)[1]),
        "beam 1, batch 16": Call(lambda: 48),
    }


def build_lazy(options: dict[str, Any]) -> dict[str, Call]:
    """Gives a token less."""
    return dict.fromkeys(["beam 1, batch 8", "beam 1, batch 16"], Call(lambda: 47))
