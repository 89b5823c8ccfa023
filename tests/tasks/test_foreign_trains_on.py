"""Models that were taken over from other programs: fine-tuned by fairseq, translated afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from data_prep.encode import encode_folder
from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.cli.main import main
from mtmoe.inference.engine import Translator
from tests.fairseq_run import train
from tests.inference.tiny_model import TEXT
from tests.interop.golden.make import FOLDERS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PAIR, LANGUAGES = "deu_Latn-eng_Latn", ("deu_Latn", "eng_Latn")


@pytest.fixture(params=sorted(FOLDERS))
def taken(request, tmp_path, capsys):
    """Our checkpoint of a golden folder, data in its vocabulary, the flags that convert tells."""
    path, text = tmp_path / "taken.pt", tmp_path / "text"
    assert main(["convert", str(FOLDERS[request.param]), "--output", str(path)]) == 0
    told = capsys.readouterr().err.partition("to train on, give fairseq-train ")[2]
    text.mkdir()
    for split in ("train", "valid", "test"):
        for language, lines in zip(LANGUAGES, (TEXT[6:11], TEXT[:5]), strict=True):
            (text / f"{split}.{PAIR}.{language}").write_text("".join(f"{s}\n" for s in lines))
    encode_folder(load_checkpoint(path).vocabulary, text, tmp_path / "data")
    return path, tmp_path / "data", ["--arch", "moe_transformer", *told.split()]


def test_a_model_that_was_taken_over_is_fine_tuned_and_translates(taken, tmp_path):
    path, data, flags = taken
    start = ["--finetune-from-model", str(path)]
    losses = []
    for updates in ("1", "30"):
        folder = tmp_path / updates
        state = train(data, folder, "--max-update", updates, "--lr", "0.01", *flags, *start)
        losses.append(state["extra_state"]["val_loss"])
    assert losses[1] < losses[0] - 0.3
    tuned = load_checkpoint(folder / "checkpoint_last.pt")
    assert (tuned.decoder_start, tuned.encoder_tags) == ("end_and_tag", "source")
    assert len(Translator(tuned).translate(["Save the file."], "eng_Latn", "deu_Latn")) == 1
    out = tmp_path / "back"
    words = ["convert", str(folder / "checkpoint_last.pt"), "--to", "huggingface"]
    assert main([*words, "--output", str(out)]) == 0
    assert json.loads((out / "generation_config.json").read_text())["decoder_start_token_id"] == 2


def test_training_without_a_step_leaves_the_function_as_it_was(taken, tmp_path):
    path, data, flags = taken
    start = ["--finetune-from-model", str(path), "--lr", "1e-30"]
    train(data, tmp_path / "same", "--max-update", "1", *flags, *start)
    before, after = load_checkpoint(path), load_checkpoint(tmp_path / "same/checkpoint_last.pt")
    source, target = torch.tensor([[9, 5, 6, 2]]), torch.tensor([[2, 8, 4, 5]])
    with torch.no_grad():
        states = [c.build_model()(source, target).states for c in (before, after)]
    assert_close(states[1], states[0], rtol=1e-6, atol=1e-6)


def test_fairseq_generate_translates_as_the_command_does(taken):
    path, data, _ = taken
    program = Path(sys.executable).with_name("fairseq-generate")
    words = [str(data), "--user-dir", str(ROOT / "mtmoe"), "--path", str(path), "--beam", "1"]
    words += ["-s", "eng_Latn", "-t", "deu_Latn", "--remove-bpe", "sentencepiece"]
    words += ["--max-len-a", "2", "--max-len-b", "20", "--batch-size", "1"]
    found = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    rows = sorted(line.split("\t") for line in found.stdout.splitlines() if line[:2] == "D-")
    expected = Translator.from_checkpoint(path).translate(
        list(TEXT[:5]), "eng_Latn", "deu_Latn", beam=1
    )
    equal = sum(row[2] == line for row, line in zip(rows, expected, strict=True))
    assert equal >= 4, (rows, expected)  # fairseq may write <unk>, tags, and empty lines
