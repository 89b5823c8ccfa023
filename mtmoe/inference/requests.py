"""What a `Translator` is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mtmoe.errors import DataError
from mtmoe.inference.records import join_blanks
from mtmoe.inference.segments import WORD_START, join_parts

END = "</s>"
LongLines = Literal["split", "truncate", "error"]  # what is done with too long a line


@dataclass(frozen=True)
class Request:
    """One line to translate.

    Raises:
        DataError: text or prefix is no str.
    """

    text: str
    source_lang: str
    target_lang: str
    prefix: str = ""  # what the translation begins with
    name: str = "a line"  # stands in warnings and errors

    def __post_init__(self) -> None:
        for key, value in (("text", self.text), ("prefix", self.prefix)):
            if not isinstance(value, str):
                raise DataError(f"{key} of {self.name} must be a str, but is {value!r:.50}.")


@dataclass(frozen=True)
class Translation:
    """One translation of a line."""

    text: str
    score: float  # sum of log probabilities / tokens ** length_penalty; 0 for an empty line
    pieces: tuple[str, ...] = ()  # with "</s>" at the end of each part of the line
    log_probs: tuple[float, ...] = ()  # of each piece

    @property
    def words(self) -> list[tuple[str, float]]:
        """Each word with the sum of its pieces' log probabilities; ends of parts included."""
        return join_pieces(self.pieces, self.log_probs)


def join_pieces(pieces: Sequence[str], log_probs: Sequence[float]) -> list[tuple[str, float]]:
    """Words, which begin at SentencePiece's mark, and the sum of their pieces' log probabilities.

    The end, "</s>", is a word of its own.
    """
    words: list[tuple[str, float]] = []
    for piece, log_prob in zip(pieces, log_probs, strict=True):
        is_new = piece.startswith(WORD_START) or piece == END or not words or words[-1][0] == END
        if is_new:
            words.append((piece.removeprefix(WORD_START), log_prob))
        else:
            words[-1] = (words[-1][0] + piece, words[-1][1] + log_prob)
    return words


EMPTY = Translation("", 0.0)


def join_split(
    parts: Sequence[Sequence[Translation]], language: str, length_penalty: float
) -> list[Translation]:
    """The translations of a line that was too long out of those of its parts."""
    if not parts:
        return [EMPTY]
    if len(parts) == 1:
        return list(parts[0])
    joined = []
    for rank in range(max(map(len, parts))):
        chosen = [part[min(rank, len(part) - 1)] for part in parts]
        pieces = tuple(piece for part in chosen for piece in part.pieces)
        log_probs = tuple(value for part in chosen for value in part.log_probs)
        score = sum(log_probs) / len(log_probs) ** length_penalty
        text = join_parts([part.text for part in chosen], language)
        joined.append(Translation(text, score, pieces, log_probs))
    return joined


def join_chunks(
    chunks: Sequence[str], found: Sequence[Sequence[Translation]], length_penalty: float
) -> list[Translation]:
    """The translations of a line out of those of its texts between blanks.

    Args:
        chunks: blanks and texts in turns, see `records.split_blanks`.
        found: the ranked translations of each text; the k-th of the line has their k-th ones.
    """
    joined = []
    for rank in range(max(map(len, found), default=1)):
        chosen = [ranked[min(rank, len(ranked) - 1)] for ranked in found]
        pieces = tuple(piece for part in chosen for piece in part.pieces)
        log_probs = tuple(value for part in chosen for value in part.log_probs)
        score = sum(log_probs) / len(log_probs) ** length_penalty if log_probs else 0.0
        text = join_blanks(chunks, [part.text for part in chosen])
        joined.append(Translation(text, score, pieces, log_probs))
    return joined
