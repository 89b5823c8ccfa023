"""Two command lines, one trained model: `mtmoe translate` and stock `fairseq-generate` agree."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from data_prep.encode import encode_folder
from mtmoe.checkpoint.fairseq_file import load_checkpoint, write_checkpoint
from mtmoe.interop.foreign_model import NO_TRAINING
from tests.golden.make import CHECKPOINT, SOURCE, TRANSLATION

ROOT = Path(__file__).parents[2]


def printed(command: Sequence[str | Path]) -> list[str]:
    """The lines that a command of this environment writes to standard output."""
    program = Path(sys.executable).with_name(str(command[0]))
    words = [program, *command[1:]]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("beam", ["1", "4"])
def test_fairseq_generate_says_what_translate_says(tmp_path: Path, beam: str) -> None:
    text = tmp_path / "text"
    text.mkdir()
    for split in ("train", "test"):
        (text / f"{split}.aa-bb.aa").write_bytes(SOURCE.read_bytes())
        (text / f"{split}.aa-bb.bb").write_bytes(TRANSLATION.read_bytes())
    model = tmp_path / "model.pt"  # with what fairseq wants to see beside the weights
    history = {"optimizer_history": [dict(NO_TRAINING)], "extra_state": {}}
    write_checkpoint(model, torch.load(CHECKPOINT, weights_only=True) | history)
    encode_folder(load_checkpoint(CHECKPOINT).vocabulary, text, tmp_path / "data-bin")
    ours = printed(
        ["mtmoe", "translate", "--model", model, "--target-lang", "bb",
         "--source-lang", "aa", "--beam", beam, "--scores", SOURCE]
    )  # fmt: skip
    rows = printed(
        ["fairseq-generate", tmp_path / "data-bin", "--user-dir", "mtmoe", "--path", model,
         "-s", "aa", "-t", "bb", "--beam", beam, "--max-len-a", "2", "--max-len-b", "20",
         "--remove-bpe", "sentencepiece"]
    )  # fmt: skip
    hypotheses = (row.removeprefix("D-").split("\t") for row in rows if row.startswith("D-"))
    theirs = [text for _, _, text in sorted(hypotheses, key=lambda row: int(row[0]))]
    assert [line.split("\t", 1)[1] for line in ours] == theirs
