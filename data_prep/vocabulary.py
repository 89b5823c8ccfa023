"""Step 5: one SentencePiece model for all languages, trained on train only."""

from __future__ import annotations

import dataclasses
import io
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.assign import make_hash
from data_prep.command import Run, run_main
from data_prep.config import VocabularySettings
from data_prep.extract import monolingual_of, pairs_of
from data_prep.manifest import Result, Step, run_step
from data_prep.parallel import map_on_cores
from data_prep.text_files import mono_path, text_path
from mtmoe.data.vocabulary import CONTROL_SYMBOLS, TAG, read_symbols
from mtmoe.errors import ConfigError, DataError, run_command
from mtmoe.files import open_atomic

MODEL = "sentencepiece.model"
MAX_REPEAT = 5  # a small language counts at most this many times
SPACE = "▁"  # as SentencePiece writes it
LEAST_COVERAGE = (
    0.98  # that SentencePiece can be asked for; the characters that we require add to it
)


class Sample(NamedTuple):
    """Text of one language."""

    language: str
    lines: list[str]
    characters: Counter[str]  # of all its text


class _Job(NamedTuple):
    language: str
    paths: list[Path]
    max_lines: int
    seed: int


def vocabulary(run: Run) -> None:
    """Write `sentencepiece.model`."""
    files = train_files(run)
    inputs = {name: run.out / name for names in files.values() for name in names}
    settings = dataclasses.asdict(run.config.vocabulary) | {"seed": run.config.seed}
    if run.config.vocabulary.model is not None:
        settings["model"] = True  # the manifest has no paths; its checksum says which
        inputs["vocabulary.model"] = Path(run.config.vocabulary.model)
    run_step(run.out, Step("vocabulary", settings, inputs, lambda: _vocabulary(run, files)))


def train_files(run: Run) -> dict[str, list[str]]:
    """The train files of each language, relative to the run folder."""
    files: dict[str, list[str]] = {}
    for pair in pairs_of(run.config):
        for language in pair.split("-"):
            files.setdefault(language, []).append(text_path("train", pair, language))
    for language in monolingual_of(run.config):
        files.setdefault(language, []).append(mono_path("train", language))
    return dict(sorted(files.items()))


def _vocabulary(run: Run, files: dict[str, list[str]]) -> Result:
    settings = run.config.vocabulary
    jobs = [
        _Job(language, [run.out / name for name in names], settings.max_lines, run.config.seed)
        for language, names in files.items()
    ]
    samples = list(map_on_cores(sample_text, jobs, "vocabulary"))
    counts: dict[str, Any] = {}
    if settings.model is None:
        balanced = balance({sample.language: sample.lines for sample in samples})
        required = required_characters(samples, settings.character_coverage)
        lines = (line for part in balanced.values() for line in part)
        _write(run.out / MODEL, train_model(lines, run, required))
        counts["characters"] = {code: sum(map(len, part)) for code, part in balanced.items()}
    else:
        _copy(Path(settings.model), run.out / MODEL)
    pieces = read_pieces(run.out / MODEL)
    counts |= {"pieces": len(pieces), "coverage": coverage(samples, set(pieces))}
    least = min(counts["coverage"].items(), key=lambda item: (item[1], item[0]))
    summary = f"{len(pieces):,} pieces, which have {least[1]:.3%} of {least[0]}'s characters"
    return Result([MODEL], counts, f"{summary} and more of the others'")


def sample_text(job: _Job) -> Sample:
    """At most `max_lines` distinct lines, those with the lowest hashes, and all characters."""
    hashed = make_hash(job.seed)
    chosen: dict[str, int] = {}
    characters: Counter[str] = Counter()
    for path in job.paths:
        for line in _lines(path):
            characters.update(line)
            if line not in chosen:
                chosen[line] = hashed(line)
            if len(chosen) > 2 * job.max_lines + 1000:
                chosen = dict(_lowest(chosen, job.max_lines))
    lines = [line for line, _ in _lowest(chosen, job.max_lines)]
    return Sample(job.language, lines, characters)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.rstrip("\n")


def _lowest(chosen: dict[str, int], number: int) -> list[tuple[str, int]]:
    return sorted(chosen.items(), key=lambda item: (item[1], item[0]))[:number]


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


def required_characters(samples: Iterable[Sample], share: float) -> str:
    """The most frequent characters of each language that make up `share` of its text, sorted.

    With a share of 1 SentencePiece finds them itself: it keeps all that it sees.
    """
    if share == 1:
        return ""
    required: set[str] = set()
    for sample in samples:
        left = share * sample.characters.total()
        for character, count in sorted(sample.characters.items(), key=lambda i: (-i[1], i[0])):
            if left <= 0:
                break
            required.add(character)
            left -= count
    return "".join(sorted(required - {" "}))


def coverage(samples: Iterable[Sample], pieces: set[str]) -> dict[str, float]:
    """The share of each language's characters that are pieces; bytes stand for the others."""
    shares = {}
    for sample in samples:
        known = sum(n for c, n in sample.characters.items() if (SPACE if c == " " else c) in pieces)
        shares[sample.language] = round(known / max(sample.characters.total(), 1), 6)
    return shares


def train_model(lines: Iterable[str], run: Run, required: str = "") -> bytes:
    """Train a unigram model with byte fallback; equal input gives equal bytes.

    One thread, because the order of sums decides the last bits of the piece scores. Text is left
    as it is (rule "identity"): it is normalised before, and translations must give its characters
    back.

    Args:
        required: characters that get pieces; without any, `character_coverage` decides.

    Raises:
        ConfigError: the text is too small for so large a vocabulary, or the vocabulary too small
            for the characters of the text.
    """
    import sentencepiece

    settings: VocabularySettings = run.config.vocabulary
    model = io.BytesIO()
    more: dict[str, Any] = {"required_chars": required} if required else {}
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=settings.size,
            character_coverage=LEAST_COVERAGE if required else settings.character_coverage,
            **more,
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


def read_pieces(path: Path) -> list[str]:
    """The pieces of a SentencePiece model.

    Raises:
        ConfigError: the file is none.
    """
    from sentencepiece import SentencePieceProcessor

    try:
        model = SentencePieceProcessor(model_file=str(path))
    except RuntimeError:
        raise ConfigError(
            f"vocabulary.model must be a SentencePiece model, but {path} is not. Give another file."
        ) from None
    return [model.id_to_piece(number) for number in range(model.get_piece_size())]


def _copy(source: Path, path: Path) -> None:
    """Take over a model.

    Raises:
        ConfigError: the file is none, or has pieces that the dictionary has of its own.
    """
    own = {*CONTROL_SYMBOLS, "<pad>"}
    taken = [piece for piece in read_pieces(source) if piece in own or TAG.fullmatch(piece)]
    if taken:
        raise ConfigError(
            "vocabulary.model must leave padding, task symbols and tags to the dictionary, but "
            f"{source} has the piece {taken[0]}. Train it without (pad_id=-1)."
        )
    with open(source, "rb") as file, open_atomic(path, "wb") as copy:
        shutil.copyfileobj(file, copy)


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
