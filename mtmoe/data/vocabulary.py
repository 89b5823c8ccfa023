"""The joint vocabulary: SentencePiece pieces and language tags, with fairseq's numbers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import sentencepiece

from mtmoe.errors import DataError

BOS, PAD, EOS, UNK = 0, 1, 2, 3  # fairseq's Dictionary begins with these
TAG = re.compile(r"__\w+__")
SPECIAL_SYMBOLS = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"
CONTROL_SYMBOLS = (MASK, "<denoising>", "<modelling>", "<title>")  # before the tags, if there


def language_tag(language: str) -> str:
    """The symbol that stands for a language, `__de__`."""
    return f"__{language}__"


def task_token(task: str) -> str:
    """The symbol that tells the encoder a task, `<denoising>`."""
    return f"<{task}>"


@dataclass(frozen=True)
class Vocabulary:
    """Text to ids and back.

    Args:
        symbols: all V symbols, the four special ones first.
        model: the SentencePiece model file's bytes.
    """

    symbols: tuple[str, ...]
    model: bytes

    @cached_property
    def index(self) -> dict[str, int]:
        """The id of each symbol."""
        return {symbol: n for n, symbol in enumerate(self.symbols)}

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Languages that have a tag, in the order of the vocabulary; tags are its last symbols."""
        tags = itertools.takewhile(TAG.fullmatch, reversed(self.symbols))
        return tuple(tag[2:-2] for tag in tags)[::-1]

    @cached_property
    def untranslatable(self) -> tuple[int, ...]:
        """Ids that stand for no text: language tags, mask and task tokens."""
        tags = map(language_tag, self.languages)
        return tuple(self.index[s] for s in (*tags, *CONTROL_SYMBOLS) if s in self.index)

    def control(self, symbol: str) -> int:
        """The id of the mask or of a task token.

        Raises:
            DataError: the vocabulary lacks it.
        """
        found = self.index.get(symbol)
        if found is None:
            raise DataError(
                f"the dictionaries must hold {symbol}, but do not. Add it with "
                "`python -m data_prep.vocabulary --add-task-symbols DATA-BIN`."
            )
        return found

    @cached_property
    def _pieces(self) -> sentencepiece.SentencePieceProcessor:
        try:
            return sentencepiece.SentencePieceProcessor(model_proto=self.model)
        except RuntimeError:
            raise DataError(
                "sentencepiece.model must be a SentencePiece model, but is damaged. "
                "Prepare the data again."
            ) from None

    def tag(self, language: str) -> int:
        """The id of a language's tag.

        Raises:
            DataError: the language has no tag.
        """
        found = self.index.get(language_tag(language))
        if found is None:
            known = ", ".join(self.languages)
            raise DataError(f"language must be one of {known}, but is {language!r}.")
        return found

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of each line's pieces, without tags and end."""
        pieces = self._pieces.encode(list(lines), out_type=str)
        return [[self.index.get(piece, UNK) for piece in line] for line in pieces]

    def decode(self, sentences: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sentence; special symbols and tags are left out."""
        return [self._pieces.decode(self._keep_pieces(ids)) for ids in sentences]

    def _keep_pieces(self, ids: Sequence[int]) -> list[str]:
        first = len(SPECIAL_SYMBOLS)
        return [self.symbols[i] for i in ids if i >= first and i not in self.untranslatable]


def read_symbols(text: str) -> tuple[str, ...]:
    """The symbols of a fairseq dictionary file: special ones, then one "symbol count" a line."""
    lines = [line.rsplit(" ", 1)[0] for line in text.split("\n") if line]
    return SPECIAL_SYMBOLS + tuple(lines)
