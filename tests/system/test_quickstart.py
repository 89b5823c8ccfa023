"""The quickstart's whole chain in miniature, on the committed sample, by its own script."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from mtmoe.checkpoint.fairseq_file import load_checkpoint

ROOT = Path(__file__).parents[2]
DIRECTIONS = sorted(f"{a}-{b}" for x in ("de", "es", "fr") for a, b in (("en", x), (x, "en")))
SMALL = ["model.embed_dim=64", "model.ffn_dim=64", "model.attention_heads=4"]


def run(command, out, settings=None, **kwargs):
    environment = os.environ | {
        "OUT": str(out),
        "MINUTES": "0.3",
        "DATA": str(ROOT / "tests/samples/gettext/data.yaml"),
        "OMP_NUM_THREADS": "2",
        **(settings or {}),
    }
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, **kwargs
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The run folder after `recipes/quickstart/run.sh`, and what it printed."""
    out = tmp_path_factory.mktemp("quickstart") / "run"
    result = run(["bash", "recipes/quickstart/run.sh", *SMALL], out)
    assert result.returncode == 0, result.stderr[-3000:]
    return out, result


@pytest.mark.slow
def test_the_chain_leaves_what_it_promises(finished):
    out, result = finished
    scores = json.loads((out / "scores.json").read_text())
    found = {(row["system"], row["direction"]) for row in scores}
    assert found == {(s, d) for s in ("full", "pruned", "copy") for d in DIRECTIONS}
    for row in scores:
        assert 0 <= row["bleu"] <= 100
        assert "version:" in row["signature"]
    assert (out / "manifest.json").is_file()
    assert (out / "experts.png").read_bytes().startswith(b"\x89PNG")
    assert f"--model {out}/checkpoints/checkpoint_best.pt --source-lang en" in result.stderr
    assert "en-de" in result.stdout


@pytest.mark.slow
def test_a_second_run_skips_everything(finished):
    out, _ = finished
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    result = run(["bash", "recipes/quickstart/run.sh", *SMALL], out)
    assert result.returncode == 0, result.stderr[-3000:]
    after = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    changed = {p.name for p in after if before.get(p) != after[p]}
    assert not {name for name in changed if name.endswith((".pt", ".bin", ".png", ".model"))}


@pytest.mark.slow
def test_both_programs_translate_every_line(finished):
    """What they say is compared in test_fairseq_generate.py: this model has learned little."""
    out, _ = finished
    model = out / "checkpoints" / "checkpoint_best.pt"
    source = (out / "text" / "test.en-de.en").read_text("utf-8")
    translated = run(
        ["mtmoe", "translate", "--model", str(model), "--target-lang", "de"], out, input=source
    )
    assert translated.returncode == 0, translated.stderr
    num_lines = len(source.splitlines())
    assert len(translated.stdout.splitlines()) == num_lines
    generate = (
        f"fairseq-generate {out}/data-bin --user-dir mtmoe --path {model} -s en -t de --beam 4"
    )
    stock = run(generate.split(), out)
    assert stock.returncode == 0, stock.stderr[-3000:]
    rows = [line.split("\t")[0] for line in stock.stdout.splitlines() if line.startswith("D-")]
    assert sorted(rows) == sorted(f"D-{n}" for n in range(num_lines))


@pytest.mark.slow
def test_printf_gives_as_many_lines(finished):
    out, _ = finished
    model = out / "checkpoints" / "checkpoint_best.pt"
    result = run(
        ["mtmoe", "translate", "--model", str(model), "--target-lang", "de"],
        out, input="Save\n\nDelete the selected files?\n",
    )  # fmt: skip
    lines = result.stdout.split("\n")
    assert len(lines) == 4
    assert lines[1] == lines[3] == ""


@pytest.mark.slow
def test_another_architecture_is_refused_and_nothing_changes(finished):
    out, _ = finished
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    result = run(["bash", "recipes/quickstart/run.sh", *SMALL, "model.num_experts=4"], out)
    assert result.returncode == 2
    assert result.stderr.endswith("but is 4. Give another OUT.\n")
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*")}


@pytest.mark.long
def test_fewer_experts_are_pruned_and_scored_anew(finished):
    out, _ = finished
    before = (out / "checkpoints" / "checkpoint_best.pt").stat().st_mtime_ns
    scores = json.loads((out / "scores.json").read_text())
    result = run(["bash", "recipes/quickstart/run.sh", *SMALL], out, {"KEEP": "2"})
    assert result.returncode == 0, result.stderr[-3000:]
    tuned = load_checkpoint(out / "checkpoints" / "pruned" / "checkpoint_best.pt")
    assert tuned.config.router.num_experts == 2
    assert (out / "checkpoints" / "pruned.old-1" / "checkpoint_best.pt").exists()
    assert (out / "checkpoints" / "checkpoint_best.pt").stat().st_mtime_ns == before
    assert json.loads((out / "scores.json").read_text()) != scores


@pytest.mark.long
def test_other_text_is_trained_on(finished, tmp_path):
    """Runs last: it sets the checkpoints aside."""
    out, _ = finished
    for path in (ROOT / "tests/samples/gettext").glob("sample.*"):
        lines = path.read_text("utf-8").splitlines(keepends=True)
        (tmp_path / path.name).write_text("".join(lines[:600]), "utf-8")
    data = (ROOT / "tests/samples/gettext/data.yaml").read_text("utf-8")
    (tmp_path / "data.yaml").write_text(data.replace("test: 40", "test: 10"), "utf-8")
    settings = {"DATA": str(tmp_path / "data.yaml"), "MINUTES": "0.1"}
    result = run(["bash", "recipes/quickstart/run.sh", *SMALL], out, settings)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "It is set aside as" in result.stderr
    old, new = (out / name / "checkpoint_best.pt" for name in ("checkpoints.old-1", "checkpoints"))
    assert load_checkpoint(old).vocabulary != load_checkpoint(new).vocabulary
    assert (out / "checkpoints" / "pruned" / "checkpoint_best.pt").exists()
