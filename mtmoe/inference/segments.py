"""Too long a sentence is translated in parts, never cut."""

from __future__ import annotations

from collections.abc import Sequence

WORD_START = "▁"  # SentencePiece's mark
SENTENCE_ENDS = (".", "!", "?", "…", ":", ";", "؟", "।", "։", "።")  # if a new word follows
FULL_STOPS = ("。", "！", "？")  # end a sentence whatever follows
SPACELESS = frozenset({"bo", "ja", "km", "lo", "my", "th", "wuu", "yue", "zh"})


def split_pieces(ids: Sequence[int], symbols: Sequence[str], limit: int) -> list[list[int]]:
    """Cut `ids` into parts of at most `limit` pieces that together are `ids`.

    Halves them where a sentence ends, else between words, else anywhere: at that place of the best
    kind that is nearest to the middle; and so on with the halves.

    Args:
        ids: numbers of `symbols`, the pieces of SentencePiece.
        limit: at least 1.
    """
    if len(ids) <= limit:
        return [list(ids)] if ids else []
    middle = len(ids) / 2

    def merit(cut: int) -> tuple[int, float]:
        return _cut_merit(symbols[ids[cut - 1]], symbols[ids[cut]]), -abs(cut - middle)

    cut = max(range(1, len(ids)), key=merit)
    return split_pieces(ids[:cut], symbols, limit) + split_pieces(ids[cut:], symbols, limit)


def _cut_merit(before: str, after: str) -> int:
    """2 between sentences, 1 between words, 0 inside a word."""
    is_word_start = after.startswith(WORD_START)
    if before.endswith(FULL_STOPS) or (is_word_start and before.endswith(SENTENCE_ENDS)):
        return 2
    return int(is_word_start)


def join_parts(parts: Sequence[str], language: str) -> str:
    """Translated parts as one line, with the spaces that the language writes."""
    glue = "" if language.split("_")[0] in SPACELESS else " "
    return glue.join(part for part in parts if part)
