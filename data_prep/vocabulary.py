"""Step 5: one SentencePiece model for all languages, trained on train only."""

from __future__ import annotations

import dataclasses
import io
import sys
from pathlib import Path

from data_prep.assign import make_hash
from data_prep.command import Run, run_main
from data_prep.config import VocabularySettings
from data_prep.extract import pairs_of
from data_prep.manifest import Result, Step, run_step
from data_prep.split import text_path
from mtmoe.data.vocabulary import CONTROL_SYMBOLS, TAG, read_symbols
from mtmoe.errors import ConfigError, DataError, run_command
from mtmoe.files import open_atomic, read_lines

MODEL = "sentencepiece.model"
MAX_REPEAT = 5  # a small language counts at most this many times
MAX_LINES = 200_000  # of one language


def vocabulary(run: Run) -> None:
    """Write `sentencepiece.model`."""
    files = train_files(run)
    inputs = {name: run.out / name for names in files.values() for name in names}
    settings = dataclasses.asdict(run.config.vocabulary) | {"seed": run.config.seed}
    run_step(run.out, Step("vocabulary", settings, inputs, lambda: _vocabulary(run, files)))


def train_files(run: Run) -> dict[str, list[str]]:
    """The train files of each language, relative to the run folder."""
    files: dict[str, list[str]] = {}
    for pair in pairs_of(run.config):
        for language in pair.split("-"):
            files.setdefault(language, []).append(text_path("train", pair, language))
    return dict(sorted(files.items()))


def _vocabulary(run: Run, files: dict[str, list[str]]) -> Result:
    hashed = make_hash(run.config.seed)
    lines: dict[str, list[str]] = {}
    for language, names in files.items():
        distinct = {line for name in names for line in read_lines(run.out / name)}
        lines[language] = sorted(distinct, key=lambda line: (hashed(line), line))[:MAX_LINES]
    balanced = balance(lines)
    model = train_model([line for part in balanced.values() for line in part], run)
    _write(run.out / MODEL, model)
    characters = {language: sum(map(len, part)) for language, part in balanced.items()}
    counts = {"pieces": run.config.vocabulary.size, "characters": characters}
    return Result([MODEL], counts, f"{run.config.vocabulary.size:,} pieces")


def balance(lines: dict[str, list[str]]) -> dict[str, list[str]]:
    """Repeat the lines of small languages until all have about equally many characters.

    No line is taken more than MAX_REPEAT times: a handful of sentences must not fill the
    vocabulary.
    """
    sizes = {language: sum(map(len, part)) for language, part in lines.items()}
    largest = max(sizes.values())
    balanced = {}
    for language, part in lines.items():
        repeat = min(largest / max(sizes[language], 1), MAX_REPEAT)
        whole = int(repeat)
        balanced[language] = part * whole + part[: round((repeat - whole) * len(part))]
    return balanced


def train_model(lines: list[str], run: Run) -> bytes:
    """Train a unigram model with byte fallback; equal input gives equal bytes.

    One thread, because the order of sums decides the last bits of the piece scores. Text is left
    as it is (rule "identity"): it is normalised before, and translations must give its characters
    back.

    Raises:
        ConfigError: the text is too small for so large a vocabulary, or the vocabulary too small
            for the characters of the text.
    """
    import sentencepiece

    settings: VocabularySettings = run.config.vocabulary
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=settings.size,
            character_coverage=settings.character_coverage,
            byte_fallback=True,
            normalization_rule_name="identity",
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rpartition("]")[2].strip().rstrip(".")
        raise ConfigError(
            f"vocabulary.size must fit the text, but is {settings.size}: {reason}."
        ) from None
    return model.getvalue()


def _write(path: Path, model: bytes) -> None:
    with open_atomic(path, "wb") as file:
        file.write(model)


def add_task_symbols(folder: Path) -> None:
    """Add mask and task tokens to the dictionaries of a `data-bin` folder, before the tags.

    Token numbers of its text stay right, since text holds no tags. Checkpoints that were trained
    before have another vocabulary.

    Raises:
        DataError: the folder is no `data-bin`.
    """
    symbols = load_symbols(folder)
    missing = [s for s in CONTROL_SYMBOLS if s not in symbols]
    for path in sorted(folder.glob("dict.*.txt")):
        lines = path.read_text("utf-8").split("\n")[:-1]
        first_tag = len(lines)
        while first_tag and TAG.fullmatch(lines[first_tag - 1].rsplit(" ", 1)[0]):
            first_tag -= 1
        lines[first_tag:first_tag] = [f"{symbol} 1" for symbol in missing]
        with open_atomic(path) as file:
            file.write("".join(f"{line}\n" for line in lines))


def load_symbols(folder: Path) -> tuple[str, ...]:
    """The symbols of a `data-bin` folder.

    Raises:
        DataError: it has no dictionary.
    """
    first = min(folder.glob("dict.*.txt"), default=None)
    if first is None:
        raise DataError(f"DATA-BIN must hold dict.LANG.txt, but {folder} does not.")
    return read_symbols(first.read_text("utf-8"))


def main() -> int:
    """The step; or, with --add-task-symbols, the addition to a folder."""
    if sys.argv[1:2] == ["--add-task-symbols"] and len(sys.argv) == 3:
        return run_command(lambda: add_task_symbols(Path(sys.argv[2])))
    about = "Train the joint SentencePiece model. Or: --add-task-symbols DATA-BIN, which adds mask "
    about += "and task tokens to the dictionaries of a binarised folder (docs/multitask.md)."
    return run_main("vocabulary", about, vocabulary)


if __name__ == "__main__":
    sys.exit(main())
