from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtmoe.checkpoint.fairseq_file import load_checkpoint, write_checkpoint
from mtmoe.cli.main import main
from mtmoe.config import TransformerConfig, build_config
from mtmoe.data.vocabulary import language_tag
from tests.inference.tiny_model import SIZES, WEIGHT_PREFIX, tiny_state, tiny_transformer

LANGUAGES = ("de", "en")
UNNAMED = ["<denoising>", "<title>"]  # for which NLLB's tokenizer has no names


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder of Hugging Face's, and the symbols of the model that it is of."""
    state = tiny_state(LANGUAGES, ("de-en", "en-de"), "source", moe_every=0)
    symbols, tags = state["task_state"]["symbols"], [language_tag(code) for code in LANGUAGES]
    symbols[-len(tags) :] = [*UNNAMED, *tags]
    config = build_config(TransformerConfig, {**SIZES, "moe_every": 0})
    model = tiny_transformer(config, len(symbols))
    state["model"] = {WEIGHT_PREFIX + name: value for name, value in model.state_dict().items()}
    write_checkpoint(tmp_path / "ours.pt", state)
    out = tmp_path / "folder"
    words = ["convert", str(tmp_path / "ours.pt"), "--to", "huggingface", "--output", str(out)]
    assert main(words) == 0
    return out, symbols


def test_symbols_without_a_name_there_come_back(exported: tuple[Path, list[str]]) -> None:
    folder, symbols = exported
    back = folder.with_name("back.pt")
    assert main(["convert", str(folder), "--output", str(back)]) == 0
    assert list(load_checkpoint(back).vocabulary.symbols) == symbols


@pytest.mark.parametrize("names", [["<s>", "<title>"], ["a", "a"], ["a"] * 999, [3] * 999])
def test_symbols_that_have_two_places_are_refused(
    exported: tuple[Path, list[str]], names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = exported
    values = json.loads((folder / "config.json").read_text())
    values["mtmoe"]["symbols"] = names
    (folder / "config.json").write_text(json.dumps(values))
    assert main(["convert", str(folder), "--output", str(folder.with_name("back.pt"))]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not folder.with_name("back.pt").exists()
