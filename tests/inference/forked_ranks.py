"""Ranks as torchrun would start them, but forked: no library is imported again."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from mtmoe.cli.main import main

LIMIT = 60.0  # seconds


def run_forked(
    num_ranks: int, words: list[str], folder: Path, prepare: Callable[[int], None] | None = None
) -> tuple[list[int | None], list[str]]:
    """`mtmoe` with the arguments `words` on each rank; exit codes, and what each said.

    Args:
        prepare: called with its number on each rank before.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    context = multiprocessing.get_context("fork")
    arguments = [(rank, num_ranks, port, words, folder, prepare) for rank in range(num_ranks)]
    processes = [context.Process(target=_run_rank, args=given) for given in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LIMIT)
        process.kill()  # nothing, if it has ended
        process.join()
    said = [(folder / f"stderr.{rank}").read_text("utf-8") for rank in range(num_ranks)]
    return [process.exitcode for process in processes], said


def _run_rank(
    rank: int,
    num_ranks: int,
    port: int,
    words: list[str],
    folder: Path,
    prepare: Callable[[int], None] | None,
) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks}
    names |= {"LOCAL_WORLD_SIZE": num_ranks, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    sys.stderr = open(folder / f"stderr.{rank}", "w", encoding="utf-8")  # noqa: SIM115  (to the end)
    logging.root.handlers.clear()
    if prepare is not None:
        prepare(rank)
    code = 70
    try:
        code = main(words)
    finally:
        sys.stderr.flush()
        os._exit(code)
