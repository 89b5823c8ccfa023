"""Run a function on N ranks: forked processes that meet through a file (gloo)."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT = 60  # seconds until a rank that stays away is an error


def run_ranks(
    function: Callable[..., None], num_ranks: int, *args: Any, limit: float = 2 * TIMEOUT
) -> None:
    """Call `function(*args)` on each rank; fail with the traceback of the first that failed.

    Ranks that take longer than `limit` seconds are killed.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_run_rank, args=(function, rank, num_ranks, folder, args))
            for rank in range(num_ranks)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(limit)
        for process in processes:
            if process.is_alive():
                process.kill()
        errors = [path.read_text() for path in sorted(Path(folder).glob("error.*"))]
        codes = [process.exitcode for process in processes]
    assert not errors, errors[0]
    assert codes == [0] * num_ranks, f"exit codes {codes}"


def _run_rank(
    function: Callable[..., None], rank: int, num_ranks: int, folder: str, args: tuple[Any, ...]
) -> None:
    code = 1
    try:
        torch.set_num_threads(1)  # a forked process must not use its parent's threads
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store",
            rank=rank,
            world_size=num_ranks,
            timeout=timedelta(seconds=TIMEOUT),
        )
        function(*args)
        dist.barrier()
        code = 0
    except BaseException:  # noqa: BLE001  (a rank tells everything to the test)
        (Path(folder) / f"error.{rank}").write_text(f"rank {rank}\n{traceback.format_exc()}")
    os._exit(code)
