"""What a fairseq `data-bin` folder holds: vocabulary, languages, directions, splits."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mtmoe.config import MultitaskConfig
from mtmoe.data.mmap_text import MmapText, count_sentences
from mtmoe.data.vocabulary import Vocabulary, read_symbols
from mtmoe.errors import ConfigError, DataError

MODEL_FILE = "sentencepiece.model"
MONO, TITLES = "mono", "titles"  # folders of monolingual and of titled text
PAIR = re.compile(r"(\w+)\.(\w+)-(\w+)\.(\w+)")  # split.first-second.language
TEXT_OF_TITLES = re.compile(r"(\w+)\.(\w+-\w+)\.(\w+)\.text")


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


def index_names(folder: str | Path) -> list[str]:
    """The indices of a folder, without `.idx`, sorted; none where there is no folder."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name.removesuffix(".idx") for name in names if name.endswith(".idx"))


def find_pairs(folder: str | Path, split: str | None = None) -> dict[tuple[str, str], str]:
    """Which pair of files holds each direction: {("de", "en"): "en-de", ("en", "de"): "en-de"}.

    Args:
        split: only pairs of this split; None: of any.
    """
    pairs: dict[tuple[str, str], str] = {}
    for name in index_names(folder):
        found = PAIR.fullmatch(name)
        if found and split in (None, found[1]):
            first, second = found[2], found[3]
            pairs[first, second] = pairs[second, first] = f"{first}-{second}"
    return pairs


@dataclass(frozen=True)
class OneSplit:
    """The text of a split that is no pair: of one language, or with titles."""

    folder: Path
    split: str

    @cached_property
    def texts(self) -> dict[str, Path]:
        """The text of each language, by the path without its ending.

        That is `mono/SPLIT.de`; where a language has none, its side of the largest pair.
        """
        found: dict[str, list[Path]] = {}
        for name in index_names(self.folder):
            match = PAIR.fullmatch(name)
            if match and match[1] == self.split:
                found.setdefault(match[4], []).append(self.folder / name)
        texts = {language: _largest(paths) for language, paths in found.items()}
        for name in index_names(self.folder / MONO):
            split, _, language = name.rpartition(".")
            if split == self.split and count_sentences(self.folder / MONO / name):
                texts[language] = self.folder / MONO / name
        return {code: path for code, path in sorted(texts.items()) if count_sentences(path)}

    @cached_property
    def titles(self) -> dict[str, tuple[Path, Path]]:
        """Texts and their titles by direction, `en-de` and `de-de`, as paths without endings.

        Of a direction that several pairs have (`en-en`), the largest pair's.
        """
        folder = self.folder / TITLES
        found: dict[str, list[tuple[Path, Path]]] = {}
        for name in index_names(folder):
            match = TEXT_OF_TITLES.fullmatch(name)
            if match and match[1] == self.split and count_sentences(folder / name):
                for target in match[2].split("-"):
                    title = folder / f"{self.split}.{match[2]}.{target}.title"
                    found.setdefault(f"{match[3]}-{target}", []).append((folder / name, title))
        return {
            direction: max(files, key=lambda pair: count_sentences(pair[0]))
            for direction, files in sorted(found.items())
        }


def _largest(paths: list[Path]) -> Path:
    return max(paths, key=count_sentences) if len(paths) > 1 else paths[0]


def choose_directions(config: MultitaskConfig, available: list[str]) -> list[str]:
    """The directions that the settings ask for, in alphabetical order.

    Raises:
        ConfigError: names a direction or language that the data does not have.
        DataError: the data has none at all.
    """
    if not available:
        raise DataError(
            f"data must hold the text of at least one pair, but {config.data} has none. Prepare "
            "parallel text, too."
        )
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
