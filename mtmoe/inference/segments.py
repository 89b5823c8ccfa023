"""Too long a sentence is translated in parts, never cut."""

from __future__ import annotations

from collections.abc import Sequence

WORD_START = "▁"  # SentencePiece's mark
SENTENCE_ENDS = (".", "!", "?", "…", "؟", "।", "։", "።")  # if a word follows that may begin one
CLAUSE_ENDS = (*SENTENCE_ENDS, ":", ";")  # if a word follows
FULL_STOPS = ("。", "！", "？")  # end a sentence whatever follows
MIN_SENTENCE = 4  # pieces; what is shorter, such as "1.", goes with the next sentence
SPACELESS = frozenset({"bo", "ja", "km", "lo", "my", "th", "wuu", "yue", "zh"})


def split_pieces(ids: Sequence[int], symbols: Sequence[str], limit: int) -> list[list[int]]:
    """Cut `ids` into parts of at most `limit` pieces that together are `ids`.

    More than `limit` pieces are cut into their sentences, which is what models are trained on. A
    sentence that is still too long is halved where a clause ends, else between words, else
    anywhere: at that place of the best kind that is nearest to the middle; and so on.

    Args:
        ids: numbers of `symbols`, the pieces of SentencePiece.
        limit: at least 1.
    """
    if len(ids) <= limit:
        return [list(ids)] if ids else []
    sentences = _split_sentences(ids, [symbols[i] for i in ids])
    return [half for sentence in sentences for half in _halve(sentence, symbols, limit)]


def _split_sentences(ids: Sequence[int], pieces: Sequence[str]) -> list[Sequence[int]]:
    sentences, begin = [], 0
    for cut in range(1, len(ids)):
        if cut - begin >= MIN_SENTENCE and _is_sentence_end(pieces, cut):
            sentences.append(ids[begin:cut])
            begin = cut
    return [*sentences, ids[begin:]]


def _is_sentence_end(pieces: Sequence[str], cut: int) -> bool:
    """Whether a sentence ends before piece number `cut`; no sentence begins in lower case."""
    before = pieces[cut - 1]
    if before.endswith(FULL_STOPS):
        return True
    begin = "".join(pieces[cut : cut + 2])  # the mark may be a piece of its own
    is_start = begin.startswith(WORD_START) and not begin[1:2].islower()
    return is_start and before.endswith(SENTENCE_ENDS)


def _halve(ids: Sequence[int], symbols: Sequence[str], limit: int) -> list[list[int]]:
    if len(ids) <= limit:
        return [list(ids)]
    middle = len(ids) / 2

    def merit(cut: int) -> tuple[int, float]:
        return _cut_merit(symbols[ids[cut - 1]], symbols[ids[cut]]), -abs(cut - middle)

    cut = max(range(1, len(ids)), key=merit)
    return _halve(ids[:cut], symbols, limit) + _halve(ids[cut:], symbols, limit)


def _cut_merit(before: str, after: str) -> int:
    """2 between clauses, 1 between words, 0 inside a word."""
    is_word_start = after.startswith(WORD_START)
    if before.endswith(FULL_STOPS) or (is_word_start and before.endswith(CLAUSE_ENDS)):
        return 2
    return int(is_word_start)


def join_parts(parts: Sequence[str], language: str) -> str:
    """Translated parts as one line, with the spaces that the language writes."""
    glue = "" if language.split("_")[0] in SPACELESS else " "
    return glue.join(part for part in parts if part)
