from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks import parallel
from benchmarks.communication import CommunicationClock
from benchmarks.parallel import TABLES, measure, parse_arguments
from benchmarks.parallel_results import loss_difference, make_results, to_markdown, write_json
from mtmoe.errors import ConfigError, MtmoeError

COUNTS = {
    "calls": {"all_to_all": 16},
    "bytes": {"all_to_all": 3_000_000, "engine all_reduce": 10**6},
}


def reply(seconds: float, communication: float, loss: float = 2.0) -> dict[str, object]:
    return {"seconds": seconds, "value": {"loss": loss, "communication": communication}}


def results_of_two():  # type: ignore[no-untyped-def]
    replies = {
        "plain": [reply(1.0, 0.5), reply(2.0, 0.5), reply(4.0, 0.5, 1.0)],
        "DTD": [reply(1.0, 0.1), reply(1.0, 0.2), reply(2.0, 0.6, 1.001)],
    }
    references = {"plain": "plain", "DTD": "plain", "gone": "plain"}
    return make_results(references, replies, dict.fromkeys(replies, COUNTS))


def test_ratios_are_of_medians_and_their_spread_of_rounds() -> None:
    plain, other = results_of_two()
    assert (plain.ratio, other.ratio) == (1.0, 0.5)
    assert other.quartiles == (0.5, 0.75)
    assert other.communication_share == 0.2
    assert loss_difference([plain, other]) == pytest.approx(0.001, rel=0.01)


def test_the_table_has_a_line_a_row(tmp_path: Path) -> None:
    results = results_of_two()
    assert to_markdown(results).splitlines()[3] == (
        "| DTD | 1000 | plain | 0.50 (0.50-0.75) | 20 % | 4.0 | 16 | 3.0 | 1.0010 |"
    )
    write_json(results, tmp_path / "out.json")
    assert [row["row"] for row in json.loads((tmp_path / "out.json").read_text())] == [
        "plain",
        "DTD",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tables", "ted,3"], "--tables must be of layouts, ted, but one is '3'"),
        (["--rounds", "0"], "--rounds must be a multiple of 1, but is 0"),
        (["--dim", "33"], "--dim must be a multiple of 32, but is 33"),
        (["--json", "/no/such/folder/x"], "--json"),
    ],
)
def test_wrong_options_are_one_sentence(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_arguments(words)


def test_the_clock_counts_the_outermost_collective_only() -> None:
    clock = CommunicationClock()
    wait = clock.timed(time.sleep)
    clock.timed(lambda: wait(0.02))()
    assert 0.02 <= clock.seconds < 0.04


def test_each_reference_is_a_row_before() -> None:
    for layouts in TABLES.values():
        for number, layout in enumerate(layouts):
            assert layout.reference in [other.row for other in layouts[: number + 1]]


@pytest.mark.long
def test_layouts_are_timed_in_turns_at_the_same_loss() -> None:
    chosen = ("one process", "data 2, ZeRO-3", "expert 2")
    layouts = [layout for layout in TABLES["layouts"] if layout.row in chosen]
    results = measure(layouts, 2, {"dim": 32, "tokens": 64})
    assert [len(result.seconds) for result in results] == [2, 2, 2]
    assert loss_difference(results) < 1e-5
    one, zero, expert = results
    assert one.communication_share == 0
    assert 0 < zero.communication_share < 1
    assert 0 < expert.communication_share < 1
    assert expert.calls["all_to_all"] == 4 * 4  # of 4 layers with experts
    assert zero.calls["engine all_gather"] > 0
    assert not one.calls


def test_rows_that_do_not_train_the_same_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    results = results_of_two()
    results[1].losses[-1] = 1.5  # another update
    monkeypatch.setattr(parallel, "measure", lambda *_: results)
    monkeypatch.setattr(sys, "argv", ["parallel"])
    with pytest.raises(MtmoeError, match=r"must be equal within 1e-03, but differ by 3\.3e-01"):
        parallel.main()
