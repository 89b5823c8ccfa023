"""The recipes that start from a finished quickstart, in miniature, by their own scripts."""

from __future__ import annotations

import json

import pytest

from tests.system.test_quickstart import SMALL, run

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The run folder of a short quickstart."""
    out = tmp_path_factory.mktemp("quickstart") / "run"
    result = run(["bash", "recipes/quickstart/run.sh", *SMALL], out, {"MINUTES": "0.1"})
    assert result.returncode == 0, result.stderr[-3000:]
    return out


def call(name, run_folder, out, **settings):
    words = ["bash", f"recipes/{name}/run.sh", *SMALL]
    return run(words, out, {"RUN": str(run_folder)} | settings)


def made(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*.pt")}


def test_pruning_makes_table_and_plot_and_a_second_call_makes_no_model_anew(finished, tmp_path):
    out, settings = tmp_path / "out", {"KEEP": "4 2", "CRITERIA": "use language"}
    settings |= {"UPDATES": "2", "SENTENCES": "3"}
    result = call("pruning", finished, out, **settings)
    assert result.returncode == 0, result.stderr[-3000:]
    rows = [line.split(" | ")[:3] for line in result.stdout.splitlines() if line.startswith("| ")]
    assert ["| full", "after", "100%"] in rows
    for kind in ("use", "language"):
        for share in ("50%", "25%"):
            assert [f"| {kind}", "before", share] in rows
            assert [f"| {kind}", "after", share] in rows
    found = json.loads((out / "pruning.json").read_text())
    assert {r["direction"] for r in found if r["criterion"] == "language"} == {
        "en-de", "de-en", "en-de both",
    }  # fmt: skip
    assert (out / "pruning.png").read_bytes().startswith(b"\x89PNG")
    before = made(out)
    assert call("pruning", finished, out, **settings).returncode == 0
    assert made(out) == before


def test_aggregation_compares_three_trainings(finished, tmp_path):
    folder = finished / "checkpoints"
    settings = {"PARENTS": f"{folder}/checkpoint_best.pt {folder}/checkpoint_last.pt"}
    settings |= {"UPDATES": "4", "EVERY": "2"}
    result = call("aggregation", finished, tmp_path / "out", **settings)
    assert result.returncode == 0, result.stderr[-3000:]
    curves = json.loads((tmp_path / "out/curves.json").read_text())
    assert {name: list(curve) for name, curve in curves.items()} == {
        "joint": ["0", "2", "4"], "parent": ["0", "2", "4"], "scratch": ["2", "4"],
    }  # fmt: skip
    parent, joint = curves["parent"]["0"], curves["joint"]["0"]
    assert joint == pytest.approx(parent, abs=0.05), "both parents are almost the same model"
    before = made(tmp_path)
    assert call("aggregation", finished, tmp_path / "out", **settings).returncode == 0
    assert made(tmp_path) == before


@pytest.mark.parametrize("name", ["pruning", "aggregation"])
def test_a_run_that_is_not_there_is_refused(tmp_path, name):
    result = call(name, tmp_path / "none", tmp_path)
    assert result.returncode == 2
    assert result.stderr.endswith("Run the quickstart first.\n")
    result = call(name, tmp_path, tmp_path, UPDATES="many")
    assert result.returncode == 2
    assert "error: " in result.stderr
