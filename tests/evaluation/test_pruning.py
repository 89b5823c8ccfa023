"""The table of pruned models beside the full one."""

from __future__ import annotations

import json
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from evaluation import pruning
from evaluation.pruning import Result, curves, describe_shape, groups_of, to_markdown
from mtmoe.errors import ConfigError
from mtmoe.report.parallel_text import ParallelText
from tests.inference.tiny_model import write_tiny_checkpoint


def make(criterion, share, direction, difference, is_tuned=False, p_value=0.01):
    return Result(
        criterion, is_tuned, share, direction, 50 + difference, difference, p_value, "sig"
    )


RESULTS = [
    make("full", 1.0, "en-de", 0, p_value=1.0),
    make("full", 1.0, "de-en", 0, p_value=1.0),
    make("use", 0.5, "en-de", -4),
    make("use", 0.5, "de-en", -2, p_value=0.2),
    make("use", 0.25, "en-de", -8),
    make("use", 0.5, "en-de", -1, is_tuned=True),
]


def test_curves_are_a_column_sorted_by_share():
    assert curves(RESULTS, "en-de") == {
        "use": [(0.25, -8.0), (0.5, -4.0)],
        "use, fine-tuned": [(0.5, -1.0)],
    }


def test_table_marks_significant_differences():
    lines = to_markdown(RESULTS).splitlines()
    assert "| full |  | 100% | 50.0 | 50.0 |" in lines
    assert "| use | before | 50% | 46.0* | 48.0 |" in lines
    assert "| use | after | 50% | 49.0* |  |" in lines


def test_shape_is_given_as_hydra_overrides(tmp_path):
    path = write_tiny_checkpoint(tmp_path, experts_by_layer="4,2")
    words = describe_shape(str(path)).split()
    parsed = OverridesParser.create().parse_overrides(words)
    values = {o.key_or_group: o.value() for o in parsed}
    assert values["model.experts_by_layer"] == "4,2"
    assert values["model.num_experts"] == 4


def test_models_are_translated_compared_and_drawn(tmp_path, monkeypatch, capsys):
    model = write_tiny_checkpoint(tmp_path)
    for language, line in (("en", "Save the file."), ("de", "Die Datei speichern.")):
        (tmp_path / f"test.de-en.{language}").write_text(f"{line}\n" * 3, "utf-8")
    words = ["--text", tmp_path, "--output", tmp_path, "--beam", "1", "--model", f"full={model}"]
    words += ["--model", f"use_2={model}", "--model", f"language_2_tuned={model}"]
    monkeypatch.setattr(sys, "argv", ["pruning", *map(str, words)])
    pruning.main()
    assert "| language | after | 100% |" in capsys.readouterr().out
    found = json.loads((tmp_path / "pruning.json").read_text())
    assert {row["difference"] for row in found} == {0.0}
    assert (tmp_path / "pruning.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(sys, "argv", ["pruning", "--text", "x", "--output", str(tmp_path)])
    with pytest.raises(ConfigError, match="--model must be given, but is not"):
        pruning.main()


def test_directions_are_tested_alone_and_together():
    texts = [ParallelText(*d.split("-"), (d,), (d,)) for d in ("en-de", "en-fr", "de-en", "fr-en")]
    names = {n: [t.direction for t in ts] for n, ts in groups_of(texts, "en-de").items()}
    assert names == {
        **{t.direction: [t.direction] for t in texts},
        "en-de both": ["en-de", "de-en"],
        "all": ["en-de", "en-fr", "de-en", "fr-en"],
    }
    assert "all" not in groups_of([texts[0], texts[2]], "en-de")
