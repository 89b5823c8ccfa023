"""`mtmoe translate`: options of the weights' numbers and of the memory for experts."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtmoe.cli.main import main
from mtmoe.inference.engine import Translator
from mtmoe.inference.fixed_network import FixedExperts
from mtmoe.ops.int4_linear import Int4Linear
from tests.inference.tiny_model import TEXT, write_tiny_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("model"))


def translate(model: Path, folder: Path, *options: str) -> list[str]:
    (folder / "in").write_text("\n".join(TEXT[:7]) + "\n", "utf-8")
    files = ["--input", str(folder / "in"), "--output", str(folder / "out")]
    words = ["translate", "--model", str(model), "--target-lang", "de", "--source-lang", "en"]
    assert main([*words, *files, *options]) == 0
    return (folder / "out").read_text("utf-8").split("\n")[:-1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_dtype_reaches_the_translator(model: Path, tmp_path: Path, dtype: str) -> None:
    translator = Translator.from_checkpoint(model, dtype=dtype)
    expected = translator.translate(list(TEXT[:7]), "en", "de")
    assert translate(model, tmp_path, "--dtype", dtype) == expected


@pytest.mark.parametrize("gib", ["0", "1e-6", "1"])
def test_a_budget_for_experts_changes_no_translation(model: Path, tmp_path: Path, gib: str) -> None:
    expected = translate(model, tmp_path)
    assert translate(model, tmp_path, "--expert-memory", gib) == expected


@pytest.mark.parametrize("gib", ["-1", "nan", "inf"])
def test_a_budget_that_is_none_is_refused(
    model: Path, capsys: pytest.CaptureFixture[str], gib: str
) -> None:
    words = ["translate", "--model", str(model), "--target-lang", "de"]
    assert main([*words, f"--expert-memory={gib}"]) == 2
    assert "--expert-memory must be 0 or above" in capsys.readouterr().err


def test_an_unknown_dtype_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["translate", "--model", str(model), "--target-lang", "de", "--dtype", "int3"]
    assert main(words) == 2
    assert "int3" in capsys.readouterr().err


@pytest.mark.parametrize("options", [(), ("--expert-memory", "1e-6"), ("--dtype", "int8")])
def test_experts_in_four_bits_reach_the_translator(
    model: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    dtype = "int8" if "int8" in options else "float32"
    translator = Translator.from_checkpoint(model, dtype=dtype, expert_dtype="int4")
    expected = translator.translate(list(TEXT[:7]), "en", "de")
    assert translate(model, tmp_path, "--expert-dtype", "int4", *options) == expected
    layers = [m for m in translator.model.modules() if isinstance(m, FixedExperts)]
    assert layers
    assert all(isinstance(layer._expert(0).fc_in, Int4Linear) for layer in layers)


def test_four_bits_for_experts_that_are_not_there_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense = write_tiny_checkpoint(tmp_path, moe_every=0)
    words = ["translate", "--model", str(dense), "--target-lang", "de", "--expert-dtype", "int4"]
    assert main(words) == 2
    assert "left out for a model without experts, but is 'int4'" in capsys.readouterr().err
