from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import translate, translate_options
from benchmarks.machine import num_cores
from benchmarks.round_robin import Row, RowError, build_rows, open_workers
from benchmarks.translate import OWN_DTYPES, choose_batches, rows_of
from benchmarks.translate_calls import read_work
from benchmarks.translate_models import (
    LANGUAGES,
    QUICK,
    make_vocabulary,
    make_work,
    prepare,
)
from benchmarks.translate_options import parse_arguments
from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.errors import ConfigError, MtmoeError, run_command
from mtmoe.inference.engine import Translator

MODELS = tuple(OWN_DTYPES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("models")
    prepare(found, QUICK, has_peers=False)
    return found


def test_models_have_the_sizes_that_are_compared(folder: Path) -> None:
    configs = {name: load_checkpoint(folder / f"{name}.pt").config for name in MODELS}
    experts = {name: config.num_experts_by_layer for name, config in configs.items()}
    assert experts == {"dense": (), "dense_wide": (), "moe16": (16, 16), "pruned4": (4, 4)}
    moe, wide = configs["moe16"], configs["dense_wide"]
    layers = 2 * moe.encoder_layers
    active = moe.ffn_dim * (layers - 2 + 2 * moe.router.top_k)  # 2 MoE layers
    assert wide.ffn_dim * layers == active
    assert {(c.embed_dim, c.encoder_layers, c.attention_heads) for c in configs.values()} == {
        (64, 2, 1)
    }


def test_sources_have_mixed_lengths_and_one_piece_a_word(folder: Path) -> None:
    work = read_work(folder)
    assert len(set(map(len, work.ids))) > 4
    assert [len(line.split()) + 3 for line in work.text] == list(map(len, work.ids))
    assert all(pieces[:2] == ["__en__", "__de__"] for pieces in work.pieces)
    assert work == make_work(QUICK, make_vocabulary(QUICK.num_symbols))


def test_translations_depend_on_their_sources(folder: Path) -> None:
    work = read_work(folder)
    translator = Translator(load_checkpoint(folder / "moe16.pt"))
    found = translator.translate(work.text, *LANGUAGES, beam=2, min_length=12, max_length=12)
    assert len(set(found)) > len(found) // 2
    assert sum(len(set(line.split())) for line in found) > 2 * len(found)


def test_tokens_go_to_all_experts_about_evenly(folder: Path) -> None:
    model = load_checkpoint(folder / "moe16.pt").build_model()
    draw = torch.Generator().manual_seed(7)
    source, target = (torch.randint(4, 498, (32, 12), generator=draw) for _ in range(2))
    with torch.no_grad():
        routings = model(source, target).routings
    assert len(routings) == 2
    for routing in routings:
        counts = routing.expert.flatten().bincount(minlength=16)
        assert counts.min() > 0
        assert counts.max() < 4 * counts.float().mean()


@pytest.mark.slow
def test_a_quick_run_writes_table_and_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "translate.json"
    words = ["--quick", "--only", "float32", "--threads", "1", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["translate", *words])
    assert run_command(translate.main) == 0
    found = json.loads(file.read_text())
    assert [(r["model"], r["beam"]) for r in found] == [(m, b) for b in (1, 4) for m in MODELS]
    for entry in found:
        assert 0 < entry["low"] <= entry["tokens_per_second"] <= entry["high"]
        assert (entry["engine"], entry["dtype"], entry["rounds"]) == ("mtmoe", "float32", 2)
        assert entry["batch"] in (4, 8)
        assert entry["peak_mib"] > 50
        assert entry["ratio"] == 1 or entry["model"] != "dense"
    out, err = capsys.readouterr()
    assert "| mtmoe dense float32 1x1 | 1.00 | " in out
    assert "- 8 sentences of " in out
    assert "beam 4, mtmoe moe16 float32 1x1, tokens/s by batch: 4: " in err


def test_rows_that_do_other_work_are_left_out() -> None:
    failures: dict[str, str] = {}

    def on_failure(name: str, error: RowError) -> None:
        failures[name] = str(error)

    rows = [Row(kind, f"tests.benchmarks.toy_rows:build_{kind}") for kind in ("lazy", "diligent")]
    with open_workers(rows, 1) as workers:
        build_rows(workers, {row.name: {} for row in rows}, on_failure)
        assert choose_batches(workers, 1, [8, 16], 48, on_failure) == {"diligent": 16}
    assert failures == {"lazy": "it gives 47 tokens in place of 48"}


def test_peers_come_in_their_best_settings() -> None:
    args = parse_arguments(["--threads", str(num_cores())], "")
    args.peers, cores = True, num_cores()
    names = list(map(str, rows_of(args)))
    assert f"mtmoe moe16 int8 {cores}x1" in names
    assert f"fairseq dense float32 1x{cores}" in names
    assert f"huggingface moe16 float32 1x{cores}" in names
    assert f"ctranslate2 dense int8 {cores}x1" in names
    assert f"ctranslate2 dense float32 1x{cores}" in names
    args.only = "moe16 float32,ctranslate2 dense int8 1x"
    assert {row.engine for row in rows_of(args)} == {"mtmoe", "huggingface", "ctranslate2"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rounds 0", "--rounds must be a whole number of at least 1, but is '0'."),
        ("--beams 1,x", "--beams must be a whole number of at least 1, but is 'x'."),
        ("--beams 201", "--beams must be at most 200, but is 201."),
        ("--batches ,", "--batches must be a whole number of at least 1, but is ''."),
        ("--threads 999", "--threads must be at most the cores .*, but is 999."),
        ("--json /no/folder/x", "--json must lie in a folder that is there, but is /no/folder/x."),
    ],
)
def test_wrong_options_are_refused(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_arguments(words.split(), "")


def test_unknown_rows_and_missing_peers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"--only must be part of a row's name .*'marian'"):
        rows_of(parse_arguments(["--only", "marian"], ""))
    monkeypatch.setattr(translate_options, "TRANSLATE_PEERS", tmp_path)
    with pytest.raises(ConfigError, match=r"Run first: bash benchmarks/peers.sh\."):
        parse_arguments(["--peers"], "")


def test_no_figure_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["translate", "--quick"])
    monkeypatch.setattr(translate, "measure", lambda *args: [])
    with pytest.raises(MtmoeError, match="no row could be measured"):
        translate.main()
