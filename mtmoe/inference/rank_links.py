"""Links between rank 0 and the others, over which jobs and results travel as Python objects.

They are no collectives: a wait for a link ends with a signal, and with the death of its other side,
whereas one inside gloo or NCCL lasts until its timeout.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge, wait
from typing import Any, NamedTuple

import torch
from torch.distributed.distributed_c10d import Store

from mtmoe.errors import MtmoeError

MEETING_SECONDS = 600.0  # until a rank that has not come is an error
GRACE_SECONDS = 1.0
ADDRESS, KEY = "address", "key"  # names in the store
END = None  # sent in place of a job


@dataclass(frozen=True)
class World:
    """Where this process stands among those that torchrun has started."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those of this machine
    local_size: int = 1

    @staticmethod
    def of(environment: Mapping[str, str]) -> World:
        """As torchrun tells its ranks; one process without it."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return World(*(int(environment.get(n, d)) for n, d in zip(names, "0101", strict=True)))


class Failure(NamedTuple):
    """Sent in place of a result."""

    error: MtmoeError | None  # a user's mistake; None: anything else
    trace: str


def accept_links(store: Store, world: World) -> list[Connection]:
    """On rank 0: a link to each other rank, in their order; all must call `link_to_first`.

    The first words on a link prove that both sides read the same store.

    Raises:
        OSError: one has not come.
    """
    is_one_machine = world.local_size == world.size
    key = os.urandom(32)
    links: dict[int, Connection] = {}
    with socket.create_server(("127.0.0.1" if is_one_machine else "", 0)) as server:
        host = "127.0.0.1" if is_one_machine else os.environ["MASTER_ADDR"]
        store.set(KEY, key.hex())
        store.set(ADDRESS, f"{host} {server.getsockname()[1]}")
        deadline = time.monotonic() + MEETING_SECONDS
        while len(links) < world.size - 1:
            server.settimeout(max(0.0, deadline - time.monotonic()))
            link = Connection(server.accept()[0].detach())
            try:
                deliver_challenge(link, key)
                answer_challenge(link, key)
                links[link.recv()] = link
            except (AuthenticationError, EOFError, ConnectionError):
                link.close()
    return [links[rank] for rank in sorted(links)]


def link_to_first(store: Store, rank: int) -> Connection:
    """On another rank: the link to rank 0; from now on, signals do not raise.

    Rank 0 ends this process, or torchrun does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    host, port = store.get(ADDRESS).decode().split()
    key = bytes.fromhex(store.get(KEY).decode())
    link = Connection(socket.create_connection((host, int(port))).detach())
    answer_challenge(link, key)
    deliver_challenge(link, key)
    link.send(rank)
    return link


def serve(
    link: Connection,
    function: Callable[[Any, threading.Event], Any],
    stop: threading.Event,
    has_answer: bool,
) -> None:
    """Run the jobs that come over `link` with one thread, until an END comes, or it is closed.

    Args:
        has_answer: whether results are sent; else only that there is one.
    """
    torch.set_num_threads(1)
    try:
        while (item := link.recv()) is not END:
            try:
                result = function(item, stop)
            except Exception as error:  # noqa: BLE001  (it is told where the result is wanted)
                link.send(failure_of(error))
            else:
                link.send(result if has_answer else None)
    except (EOFError, OSError):
        return


def failure_of(error: Exception) -> Failure:
    """What is told of an error."""
    mistake = error if isinstance(error, MtmoeError) else None
    return Failure(mistake, "".join(traceback.format_exception(error)))


def find_closed(links: list[Connection]) -> int | None:
    """The number of the first link whose other side is closed, or is so soon; None: all are open.

    What comes over the links meanwhile is lost.
    """
    deadline = time.monotonic() + GRACE_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        for number, link in enumerate(links):
            try:
                while link.poll():
                    link.recv()
            except (EOFError, OSError):
                return number
        wait(links, left)
    return None
