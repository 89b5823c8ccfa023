"""The filters of the cleaning step: OpusFilter's, and the language check by heliport."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from data_prep.config import Limits
from data_prep.languages import has_spaces, iso_639_3, script_of

Pair = tuple[str, str]
NUM_RANKED = 30  # languages that heliport is asked for


class Filter(NamedTuple):
    """A named test of pairs."""

    name: str
    accept: Callable[[Pair], bool]
    words_only: bool = False  # judges the text without placeholders


def make_filters(languages: Pair, limits: Limits) -> list[Filter]:
    """The filters in their order; the first that refuses a pair is the one that is counted.

    Two equal languages stand for monolingual text, whose sides are equal.
    """
    import opusfilter.filters as opus

    longest, words = limits.max_characters, limits.max_words
    letters, script = limits.min_letter_share, limits.min_script_share
    long_words = [limits.max_word_characters if has_spaces(c) else longest + 1 for c in languages]
    ratio = limits.max_length_ratio * (1 if all(map(has_spaces, languages)) else 2)
    scripts = [script_of(language) for language in languages]
    shown = ["Latin" if name is None else name for name in scripts]
    shares = [0 if name is None else script for name in scripts]
    chosen = [
        ("too_long", opus.LengthFilter(1, longest, "char"), False),
        ("too_many_words", opus.LengthFilter(0, words, "word"), False),
        ("length_ratio", _smoothed_ratio(opus, ratio), False),
        ("long_word", opus.LongWordFilter(long_words), True),
        ("few_letters", opus.AlphabetRatioFilter(letters, exclude_whitespace=True), True),
        ("other_script", opus.CharacterScoreFilter(shown, shares), True),
        ("copy", opus.SimilarityFilter(1.0, lowercase=True), True),
    ]
    filters = [Filter(name, _acceptor(judge), stripped) for name, judge, stripped in chosen]
    if languages[0] == languages[1]:
        filters = [judge for judge in filters if judge.name != "copy"]
    return [*filters, Filter("other_language", LanguageCheck(languages, limits), True)]


def _acceptor(judge: Any) -> Callable[[Pair], bool]:
    def accept(pair: Pair) -> bool:
        return bool(judge.accept(next(iter(judge.score([pair])))))

    return accept


def _smoothed_ratio(opus: Any, threshold: float) -> Any:
    class SmoothedLengthRatio(opus.LengthRatioFilter):  # type: ignore[misc]
        """Both sides count 15 characters more, so that short strings may differ freely."""

        def get_length(self, segment: str, idx: int) -> int:
            return len(segment) + 15

    return SmoothedLengthRatio(threshold, "char")


@functools.cache
def load_identifier() -> Any:
    """The language identifier, 900 MB; `load_identifier.cache_clear()` lets go of it."""
    from heliport import Identifier

    return Identifier()


class LanguageCheck:
    """Refuse a pair if a side is clearly in another language than it should be.

    A side is asked for its language only if it has enough letters; it is refused only if another
    language wins by a margin (heliport's raw score, lower is better, a mean of -log10 likelihoods).
    Languages that heliport does not know are not checked.
    """

    def __init__(self, languages: Pair, limits: Limits) -> None:
        self.identifier = load_identifier()
        self.codes = [self._known_code(language) for language in languages]
        self.min_letters = limits.min_letters_to_identify
        self.margin = limits.language_margin

    def __call__(self, pair: Pair) -> bool:
        """Whether the pair is kept."""
        return all(map(self._fits, pair, self.codes))

    def _known_code(self, language: str) -> str | None:
        code = iso_639_3(language)
        try:
            self.identifier.get_confidence(code or "")
        except RuntimeError:  # heliport has no model of it
            return None
        return code

    def _fits(self, text: str, code: str | None) -> bool:
        if code is None or sum(map(str.isalpha, text)) < self.min_letters:
            return True
        ranked = self.identifier.identify_topk_with_score(text, NUM_RANKED)
        own: float = dict(ranked).get(code, ranked[-1][1])
        return bool(own - ranked[0][1] < self.margin)


def first_refusal(filters: Iterable[Filter], pair: Pair, words: Pair) -> str | None:
    """The name of the first filter that refuses the pair, or None if all accept it."""
    for judge in filters:
        if not judge.accept(words if judge.words_only else pair):
            return judge.name
    return None
