"""Translation on the ranks of torchrun: rank 0 hands batches out, groups of ranks run them.

N ranks are N / E groups of E. Each group runs a batch of its own; its ranks run it in step, each
with its own part of the experts (`expert_share.py`). All of them see the same numbers, and so take
the same decisions.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from mtmoe.errors import ConfigError, LayoutError
from mtmoe.inference import rank_links
from mtmoe.inference.expert_share import ALL_EXPERTS, ExpertShare
from mtmoe.inference.rank_links import END, Failure, World
from mtmoe.parallel.fitting import divisors, multiples_near
from mtmoe.parallel.mesh import Axis
from mtmoe.parallel.restart import init_method, meet

Item = TypeVar("Item")
Result = TypeVar("Result")
TIMEOUT = timedelta(minutes=10)  # of a group's ranks for each other
READY = GO = True

log = logging.getLogger(__name__)


class _Group:
    """As rank 0 sees it: the links to the ranks that run the same batches."""

    def __init__(self, links: list[Connection]) -> None:
        self.links = links
        self.awaited: set[Connection] = set()  # those that have not answered yet
        self.number = 0  # of the item that they run

    def send(self, number: int, item: object) -> None:
        self.number, self.awaited = number, set(self.links)
        for link in self.links:
            with contextlib.suppress(ConnectionError):  # it has died: reading tells
                link.send(item)


class Ranks:
    """All ranks, for one `Translator` on each of them; made by `join_ranks`.

    After an error they have ended.
    """

    def __init__(self, world: World, expert_parallel_size: int, store: Store | None) -> None:
        self.world, self.group_size = world, expert_parallel_size
        self.num_groups = world.size // expert_parallel_size
        self._store, self._device = store, torch.device("cpu")
        self._links: list[Connection] = []  # on rank 0 to all, its own thread first
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._own: threading.Thread | None = None
        if store is not None and self.is_first:
            self._links = rank_links.accept_links(store, world)
        elif store is not None:
            self._links = [rank_links.link_to_first(store, world.rank)]

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which translates; all others serve it."""
        return self.world.rank == 0

    def place(self, device: torch.device) -> torch.device:
        """The rank's own device of that type.

        Raises:
            LayoutError: the machine has fewer GPUs than ranks.
        """
        if device.type == "cuda":
            num_gpus, local = torch.cuda.device_count(), self.world.local_size
            if local > num_gpus:
                raise LayoutError(
                    f"the ranks of a machine must be at most its GPUs ({num_gpus}), but are "
                    f"{local}. Start fewer ranks, or give --device cpu."
                )
            device = torch.device("cuda", self.world.local_rank)
        self._device = device
        return device

    def share_experts(self, num_experts: Sequence[int]) -> ExpertShare:
        """This rank's experts. Collective, after `place`: every rank must call it once.

        Args:
            num_experts: of each MoE layer.

        Raises:
            LayoutError: there are more ranks in a group than experts in any layer.
            MtmoeError, OSError: another rank has failed.
        """
        group, rank = divmod(self.world.rank, self.group_size)
        axis = Axis(self.group_size, rank)
        ExpertShare(axis).check(num_experts)
        self._meet()
        if self.group_size == 1:
            return ALL_EXPERTS
        assert self._store is not None, "a group of several ranks has met"
        self._use_device()
        dist.init_process_group(
            "nccl" if self._device.type == "cuda" else "gloo",
            store=PrefixStore(f"group_{group}", self._store),
            rank=rank,
            world_size=self.group_size,
            timeout=TIMEOUT,
        )
        return ExpertShare(Axis(self.group_size, rank, dist.group.WORLD))

    def _meet(self) -> None:
        """Go on when all ranks are here: inside a collective nobody hears that one has failed."""
        if self.is_first:
            for number, link in enumerate(self._links, 1):
                self._receive(link, number)
            for link in self._links:
                with contextlib.suppress(ConnectionError):
                    link.send(GO)
        else:
            self._links[0].send(READY)
            self._links[0].recv()

    def map(
        self, function: Callable[[Item, threading.Event], Result], items: Sequence[Item]
    ) -> list[Result]:
        """On rank 0: `function(item, stop)` of each item, in order; the others must `serve` it.

        Raises:
            OSError: a rank has died or failed.
            MtmoeError: as `function`.
        """
        with self._lock:
            if self._stop.is_set():
                raise OSError("the ranks must be there to translate, but have ended")
            try:
                self._begin(function)
                return self._hand_out(items)
            except BaseException:
                self._end(is_done=False)
                raise

    def serve(self, function: Callable[[Any, threading.Event], Any]) -> None:
        """On the other ranks: run what rank 0 hands out, until it ends."""
        has_answer = self.world.rank % self.group_size == 0
        rank_links.serve(self._links[0], function, self._stop, has_answer)

    def _begin(self, function: Callable[[Any, threading.Event], Any]) -> None:
        """Let a thread of rank 0 do its part, since rank 0 waits for all."""
        if self._own is not None:
            return
        ours, theirs = Pipe()

        def run() -> None:
            self._use_device()
            with theirs:
                rank_links.serve(theirs, function, self._stop, has_answer=True)

        self._own = threading.Thread(target=run, name="rank 0", daemon=True)
        self._own.start()
        self._links.insert(0, ours)

    def _hand_out(self, items: Sequence[Any]) -> list[Any]:
        size = self.group_size
        starts = range(0, self.world.size, size)
        groups = [_Group(self._links[n : n + size]) for n in starts]
        results: dict[int, Any] = {}
        waiting = iter(range(len(items)))
        while len(results) < len(items) or any(group.awaited for group in groups):
            for group in groups:
                if not group.awaited and (number := next(waiting, None)) is not None:
                    group.send(number, items[number])
            awaited = {link: group for group in groups for link in group.awaited}
            ready = set(wait(list(awaited)))
            for link in [found for found in awaited if found in ready]:
                group = awaited[link]
                answer = self._receive(link, self._links.index(link))
                group.awaited.discard(link)
                if answer is not None:
                    results[group.number] = answer
        return [results[number] for number in range(len(items))]

    def _receive(self, link: Connection, rank: int) -> Any:
        try:
            found = link.recv()
        except (EOFError, OSError):
            raise self._death(rank) from None
        if not isinstance(found, Failure):
            return found
        if found.error is not None:
            raise found.error
        dead = rank_links.find_closed(self._links)  # then others fail that wait for it
        if dead is not None:
            raise self._death(dead + self.world.size - len(self._links))
        log.error("rank %d has failed:\n%s", rank, found.trace)
        raise OSError(f"rank {rank} must do its part, but has failed, see above")

    def _death(self, rank: int) -> OSError:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, after a rank has died
        return OSError(
            f"rank {rank} of {self.world.size} must live until the end, but has died. If memory "
            "is short, take a smaller --max-tokens, or a larger --expert-parallel-size"
        )

    def _use_device(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # of this thread

    def leave(self, error: BaseException | None) -> bool:
        """End the ranks, or this rank; returns whether rank 0 tells of `error`."""
        if self.is_first:
            self._end(is_done=error is None)
        if error is None and dist.is_initialized():
            dist.destroy_process_group()
        if self.is_first or not isinstance(error, Exception):
            return False
        with contextlib.suppress(EOFError, OSError):
            self._links[0].send(rank_links.failure_of(error))
            while True:  # to end first would make torchrun end rank 0
                self._links[0].recv()
        return True

    def _end(self, is_done: bool) -> None:
        self._stop.set()
        for link in self._links:
            with contextlib.suppress(OSError):
                if is_done:
                    link.send(END)
                link.close()
        self._links.clear()
        if self._own is not None:
            self._own.join(rank_links.GRACE_SECONDS)


@contextlib.contextmanager
def join_ranks(expert_parallel_size: int = 1) -> Iterator[Ranks]:
    """The ranks that torchrun has started, while the block runs; all must enter it.

    An error on another rank than 0 is raised on rank 0 and ends the block on its own.

    Args:
        expert_parallel_size: ranks that share the experts of a copy of the model out.

    Raises:
        ConfigError, LayoutError: the number of ranks is no multiple of it.
    """
    world = World.of(os.environ)
    check_sizes(world.size, expert_parallel_size)
    torch.set_num_threads(1)
    store = next(meet(init_method(os.environ)))[0] if world.size > 1 else None
    ranks = Ranks(world, expert_parallel_size, store)
    try:
        yield ranks
    except BaseException as error:
        if not ranks.leave(error):
            raise
    else:
        ranks.leave(None)


def check_sizes(num_ranks: int, expert_parallel_size: int) -> None:
    """Refuse sizes that do not go together.

    Raises:
        ConfigError, LayoutError: says what would.
    """
    size = expert_parallel_size
    if size < 1:
        raise ConfigError(f"--expert-parallel-size must be at least 1, but is {size}. Give 1.")
    if num_ranks == 1 and size > 1:
        raise LayoutError(
            f"--expert-parallel-size must be 1 in one process, but is {size}. Start {size} ranks: "
            f"torchrun --nproc_per_node {size} $(which mtmoe) COMMAND ..."
        )
    if num_ranks % size:
        raise LayoutError(
            f"--expert-parallel-size must divide the number of ranks ({num_ranks}), but is {size}. "
            f"Give {divisors(num_ranks, num_ranks)}, or start {multiples_near(num_ranks, size)} "
            "ranks."
        )
