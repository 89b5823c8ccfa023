"""What a fairseq `data-bin` folder holds: vocabulary, languages, directions, splits."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from fairseq.data import data_utils

from mtmoe.config import MultitaskConfig
from mtmoe.data.vocabulary import Vocabulary, read_symbols
from mtmoe.errors import ConfigError, DataError
from mtmoe.files import check_input

MODEL_FILE = "sentencepiece.model"
HEADER = struct.Struct("<9sQBQ")  # of an index: magic, version, code of the numbers' type, count
MAGIC = (b"MMIDIDX\0\0", 1)
ENTRY_BYTES = 4 + 8  # of an index: a sentence's length and place
ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8}  # by the code of a whole-number type


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


def load_side(folder: str | Path, split: str, pair: str, language: str) -> Any:
    """One side of a split as fairseq's indexed dataset.

    Raises:
        DataError: the files are missing or damaged.
    """
    prefix = str(Path(folder) / f"{split}.{pair}.{language}")
    _check_whole(prefix)
    return data_utils.load_indexed_dataset(prefix)


def _check_whole(prefix: str) -> None:
    """Refuse files of which a part is missing: fairseq would end in the midst of an epoch.

    Raises:
        DataError: names the file.
    """
    index, text = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    for path in (index, text):
        check_input("binarised text", path)
    with open(index, "rb") as file:
        head = file.read(HEADER.size)
    magic, version, code, count = HEADER.unpack(head) if len(head) == HEADER.size else (b"",) * 4
    if (magic, version) != MAGIC or code not in ITEM_BYTES:
        raise DataError(
            f"{index} must be an index of fairseq's mmap format, but is not. "
            "Binarise the text again."
        )
    _check_size(index, HEADER.size + ENTRY_BYTES * count)
    lengths = np.fromfile(index, np.int32, count, offset=HEADER.size)
    _check_size(text, ITEM_BYTES[code] * int(lengths.sum(dtype=np.int64)))
    if not count:
        raise DataError(f"{text} must hold sentences, but is empty. Give text of this split.")


def _check_size(path: Path, wanted: int) -> None:
    found = path.stat().st_size
    if found != wanted:
        raise DataError(
            f"{path} must have {wanted} bytes, as its index says, but has {found}. "
            "Binarise the text again."
        )
