"""Train the golden checkpoint anew: `python -m tests.golden.make`. Only when the format changes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mtmoe.checkpoint.fairseq_file import load_checkpoint, write_checkpoint
from mtmoe.inference.engine import Translator
from tests.fairseq_run import train
from tests.toy_data import toy_sentences, write_toy_data

FOLDER = Path(__file__).parent
CHECKPOINT = FOLDER / "toy.pt"
SOURCE, TRANSLATION = FOLDER / "toy.aa", FOLDER / "toy.bb"
KEPT = ("cfg", "model", "task_state")  # what translation reads
OPTIONS = ["--directions", "aa-bb,bb-aa", "--max-update", "1500", "--top-k", "2"]


def main() -> None:
    """Write the checkpoint, 21 sentences and their translations."""
    with tempfile.TemporaryDirectory() as folder:
        data = write_toy_data(Path(folder) / "data-bin")
        state = train(data, Path(folder) / "run", *OPTIONS)
    cfg = {section: state["cfg"][section] for section in ("model", "task")}
    write_checkpoint(CHECKPOINT, {name: state[name] for name in KEPT} | {"cfg": cfg})
    lines = [line[0] for line in toy_sentences()[640:]]
    translated = Translator(load_checkpoint(CHECKPOINT)).translate(lines, "aa", "bb")
    SOURCE.write_text("\n".join(lines) + "\n", "utf-8")
    TRANSLATION.write_text("\n".join(translated) + "\n", "utf-8")


if __name__ == "__main__":
    main()
