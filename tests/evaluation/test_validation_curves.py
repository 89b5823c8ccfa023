"""Validation losses out of fairseq's logs."""

from __future__ import annotations

import json
import sys

import pytest

from evaluation import validation_curves
from evaluation.validation_curves import read_run, to_markdown
from mtmoe.errors import ConfigError, DataError

LINE = (
    "[2026][valid][INFO] - epoch 001 | valid on 'valid' subset | loss 6.6 | nll_loss {} | "
    "nll_loss_de-en 5.8 | ppl 67 | num_updates {} | best_loss 6.6\n"
)
START = "2026 | INFO | valid |  | valid on 'valid' subset | loss 4.2 | nll_loss 3.5 | ppl 10\n"


@pytest.fixture
def logs(tmp_path):
    (tmp_path / "a.log").write_text(LINE.format("4.5", 100) + "noise\n" + LINE.format("4.25", 50))
    (tmp_path / "start.log").write_text(START)
    (tmp_path / "none.log").write_text("train | loss 3\n")
    return tmp_path


def test_losses_of_all_logs_come_in_order(logs):
    name, curve = read_run(f"joint={logs}/start.log+{logs}/a.log")
    assert (name, curve) == ("joint", {0: 3.5, 50: 4.25, 100: 4.5})
    assert list(curve) == [0, 50, 100]
    table = to_markdown({"joint": curve, "other": {100: 5.0}}).splitlines()
    assert table[0] == "| bits a token after updates | 0 | 50 | 100 |"
    assert table[3] == "| other |  |  | 5.000 |"


def test_files_are_written(logs, monkeypatch, capsys):
    words = ["--run", f"a={logs}/a.log", "--output", f"{logs}/out"]
    monkeypatch.setattr(sys, "argv", ["validation_curves", *words])
    validation_curves.main()
    assert "| a | 4.250 | 4.500 |" in capsys.readouterr().out
    assert json.loads((logs / "out/curves.json").read_text()) == {"a": {"50": 4.25, "100": 4.5}}
    assert (logs / "out/curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("word", "kind", "message"),
    [
        ("a", ConfigError, "--run must be NAME=LOG, but is 'a'"),
        ("a={}/none.log", DataError, "log must hold validation losses, but .*none.log has none"),
        ("a={}/no.log", DataError, "is not there"),
    ],
)
def test_what_is_no_log_is_refused(logs, word, kind, message):
    with pytest.raises(kind, match=message):
        read_run(word.format(logs))
