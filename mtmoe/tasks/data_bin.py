"""What a fairseq `data-bin` folder holds: vocabulary, languages, directions, splits."""

from __future__ import annotations

import re
from pathlib import Path

from mtmoe.config import MultitaskConfig
from mtmoe.data.mmap_text import MmapText
from mtmoe.data.vocabulary import Vocabulary, read_symbols
from mtmoe.errors import ConfigError, DataError

MODEL_FILE = "sentencepiece.model"


def load_vocabulary(folder: str | Path) -> Vocabulary:
    """The joint vocabulary of a `data-bin` folder.

    Raises:
        DataError: the folder, its dictionaries or its SentencePiece model is missing, or the
            dictionaries differ.
    """
    folder = Path(folder)
    dictionaries = sorted(folder.glob("dict.*.txt"))
    model = folder / MODEL_FILE
    if not dictionaries or not model.is_file():
        raise DataError(
            f"data must be a folder with dict.LANG.txt and {MODEL_FILE}, but {folder} is not. "
            "Make one with `python -m data_prep.prepare`."
        )
    text = dictionaries[0].read_text("utf-8")
    for other in dictionaries[1:]:
        if other.read_text("utf-8") != text:
            raise DataError(
                f"all dictionaries must be equal (one joint vocabulary), but {other} differs from "
                f"{dictionaries[0]}. Binarise the data again."
            )
    return Vocabulary(read_symbols(text), model.read_bytes())


def find_pairs(folder: str | Path, split: str | None = None) -> dict[tuple[str, str], str]:
    """Which pair of files holds each direction: {("de", "en"): "en-de", ("en", "de"): "en-de"}.

    Args:
        split: only pairs of this split; None: of any.
    """
    pattern = re.compile(r"(\w+)\.(\w+)-(\w+)\.\w+\.idx")
    pairs: dict[tuple[str, str], str] = {}
    for path in sorted(Path(folder).glob("*.idx")):
        found = pattern.fullmatch(path.name)
        if found and split in (None, found[1]):
            first, second = found[2], found[3]
            pairs[first, second] = pairs[second, first] = f"{first}-{second}"
    return pairs


def choose_directions(config: MultitaskConfig, available: list[str]) -> list[str]:
    """The directions that the settings ask for, in alphabetical order.

    Raises:
        ConfigError: names a direction or language that the data does not have.
    """
    wanted = [d.strip() for d in config.directions.split(",") if d.strip()] or available
    for direction in wanted:
        if direction not in available:
            _refuse("directions", direction, available)
    for name, side in (("source_lang", 0), ("target_lang", 1)):
        language = getattr(config, name)
        languages = sorted({d.split("-")[side] for d in wanted})
        if language and language not in languages:
            _refuse(name, language, languages)
        wanted = [d for d in wanted if not language or d.split("-")[side] == language]
    if not wanted:
        both = f"{config.source_lang}-{config.target_lang}"
        _refuse("source_lang and target_lang", both, available)
    return sorted(set(wanted))


def _refuse(name: str, value: str, known: list[str]) -> None:
    raise ConfigError(f"{name} must be among {', '.join(known)}, but is {value!r}.")


def load_side(folder: str | Path, split: str, pair: str, language: str) -> MmapText:
    """One side of a split.

    Raises:
        DataError: the files are missing or damaged.
    """
    return MmapText(Path(folder) / f"{split}.{pair}.{language}")
