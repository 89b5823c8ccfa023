from __future__ import annotations

import pytest
import torch.distributed as dist

from mtmoe.parallel.restart import init_method, meet


def test_ranks_meet_by_attempt_where_torchrun_keeps_their_addresses() -> None:
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    assert init_method(agent) == "torchrun://"
    assert init_method(agent | {"TORCHELASTIC_USE_AGENT_STORE": "False"}) == "env://"
    assert init_method({}) == "env://"


def test_an_attempt_does_not_see_what_an_earlier_one_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": kept.port, "RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("WORLD_SIZE", "2")
    stores = []
    for attempt in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
        store, rank, world = next(meet("torchrun://"))
        assert (rank, world) == (1, 2)
        stores.append(store)
    stores[0].set("address of rank 0", "an old one")
    assert stores[0].check(["address of rank 0"])
    assert not stores[1].check(["address of rank 0"])
