"""Meeting of ranks that torchrun has started again.

Ranks leave their addresses in a store that torchrun keeps. Its ranks of a second attempt use the
same store and, with `env://`, the same names in it: in torch 2.13 one may call at an address of the
first attempt, where nobody answers any more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import register_rendezvous_handler

SCHEME = "torchrun"
ATTEMPT = "TORCHELASTIC_RESTART_COUNT"
MINUTES = 10


def init_method(environment: Mapping[str, str]) -> str:
    """How the ranks of this process's job meet: by the attempt's own names, if torchrun counts."""
    return f"{SCHEME}://" if _has_agent(environment) and ATTEMPT in environment else "env://"


def _has_agent(environment: Mapping[str, str]) -> bool:
    return environment.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def meet(
    url: str, timeout: timedelta = timedelta(minutes=MINUTES), **_: Any
) -> Iterator[tuple[Store, int, int]]:
    """A rendezvous handler of torch's: a store for this attempt alone, rank, number of ranks."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    is_master = rank == 0 and not _has_agent(os.environ)
    store = TCPStore(host, port, world, is_master=is_master, timeout=timeout)
    yield PrefixStore(f"attempt_{os.environ.get(ATTEMPT, '0')}", store), rank, world
    raise RuntimeError(f"{url} is met at once only")


def register() -> None:
    """Let torch know the scheme; once a process."""
    register_rendezvous_handler(SCHEME, meet)  # type: ignore[no-untyped-call]
