"""The filters of the cleaning step: OpusFilter's, and the language check by heliport.

A filter judges a block of pairs at once; what it refuses, the filters after it do not see.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from data_prep.config import Limits
from data_prep.languages import has_spaces, iso_639_3, script_of
from data_prep.normalise import placeholders

Pair = tuple[str, str]
Judge = Callable[[Sequence[Pair]], Iterable[bool]]
DIGIT = re.compile(r"\d")  # of any script
NUM_RANKED = 30  # languages that heliport is asked for


class Filter(NamedTuple):
    """A named test of pairs."""

    name: str
    accept: Judge  # one answer a pair
    words_only: bool = False  # judges the text without placeholders


def make_filters(languages: Pair, limits: Limits) -> list[Filter]:
    """The filters in their order; the first that refuses a pair is the one that is counted.

    Two equal languages stand for monolingual text, whose sides are equal.
    """
    filters = [*_length_filters(languages, limits), *_character_filters(languages, limits)]
    if languages[0] != languages[1]:
        filters += _agreement_filters(limits)
    return [*filters, Filter("other_language", LanguageCheck(languages, limits), True)]


def _length_filters(languages: Pair, limits: Limits) -> list[Filter]:
    import opusfilter.filters as opus

    longest = limits.max_characters
    long_words = [limits.max_word_characters if has_spaces(c) else longest + 1 for c in languages]
    ratio = limits.max_length_ratio * (1 if all(map(has_spaces, languages)) else 2)
    return [
        Filter("too_long", _judge(opus.LengthFilter(1, longest, "char"))),
        Filter("too_many_words", _judge(opus.LengthFilter(0, limits.max_words, "word"))),
        Filter("length_ratio", _judge(_smoothed_ratio(opus, ratio))),
        Filter("long_word", _judge(opus.LongWordFilter(long_words)), True),
    ]


def _character_filters(languages: Pair, limits: Limits) -> list[Filter]:
    import opusfilter.filters as opus

    scripts = [script_of(language) for language in languages]
    shown = ["Latin" if name is None else name for name in scripts]
    shares = [0 if name is None else limits.min_script_share for name in scripts]
    letters = opus.AlphabetRatioFilter(limits.min_letter_share, exclude_whitespace=True)
    script = opus.CharacterScoreFilter(shown, shares)
    are_letters = functools.partial(_are_letters, limits.min_letter_share)
    are_latin = functools.partial(_are_latin, [name in ("Latin", None) for name in scripts])
    return [
        Filter("few_letters", _spared(are_letters, _judge(letters)), True),
        Filter("other_script", _spared(are_latin, _judge(script)), True),
    ]


def _agreement_filters(limits: Limits) -> list[Filter]:
    """What the two sides must have in common, or must not."""
    import opusfilter.filters as opus

    filters = [Filter("copy", _are_no_copies, True)]
    if limits.match_placeholders:
        filters.append(Filter("placeholders_differ", _placeholders_match))
    if limits.min_number_match > 0:
        judge = _judge(opus.NonZeroNumeralsFilter(limits.min_number_match))
        compare = functools.partial(_compare_digits, judge)
        filters.append(Filter("numbers_differ", _spared(_have_no_digits, compare), True))
    return filters


def _judge(judge: Any) -> Judge:
    """The answers of one of OpusFilter's filters."""

    def accept(pairs: Sequence[Pair]) -> Iterable[bool]:
        return map(judge.accept, judge.score(pairs))

    return accept


def _spared(is_fine: Callable[[Pair], bool], judge: Judge) -> Judge:
    """`judge`, which is not asked about pairs that it would surely accept."""

    def accept(pairs: Sequence[Pair]) -> Iterable[bool]:
        known = [is_fine(pair) for pair in pairs]
        answers = iter(judge([pair for pair, fine in zip(pairs, known, strict=True) if not fine]))
        return [fine or next(answers) for fine in known]

    return accept


def _are_letters(share: float, pair: Pair) -> bool:
    """Whether `share` of each side, spaces included, is letters; combining marks do not count."""
    return all(sum(map(str.isalpha, text)) >= share * len(text) for text in pair)


def _are_latin(wanted: Sequence[bool], pair: Pair) -> bool:
    """Whether each side is wanted in Latin letters, or in any, and has no others.

    All letters below U+0250 are Latin, but for the micro sign.
    """
    return all(
        is_wanted and (text.isascii() or (max(text) < "\u0250" and "\u00b5" not in text))
        for is_wanted, text in zip(wanted, pair, strict=True)
    )


def _smoothed_ratio(opus: Any, threshold: float) -> Any:
    class SmoothedLengthRatio(opus.LengthRatioFilter):  # type: ignore[misc]
        """Both sides count 15 characters more, so that short strings may differ freely."""

        def get_length(self, segment: str, idx: int) -> int:
            return len(segment) + 15

    return SmoothedLengthRatio(threshold, "char")


def _are_no_copies(pairs: Sequence[Pair]) -> Iterable[bool]:
    return (first.lower() != second.lower() for first, second in pairs)


def _placeholders_match(pairs: Sequence[Pair]) -> Iterable[bool]:
    return (placeholders(first) == placeholders(second) for first, second in pairs)


def _have_no_digits(pair: Pair) -> bool:
    return not (DIGIT.search(pair[0]) or DIGIT.search(pair[1]))


def _compare_digits(judge: Judge, pairs: Sequence[Pair]) -> Iterable[bool]:
    """OpusFilter compares the digits 1 to 9 of ASCII; those of other scripts count as these."""
    return judge([(_plain_digits(first), _plain_digits(second)) for first, second in pairs])


def _plain_digits(text: str) -> str:
    return "".join(str(unicodedata.decimal(c)) for c in text if c.isdecimal())


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

    def __call__(self, pairs: Sequence[Pair]) -> Iterable[bool]:
        """Whether each pair is kept."""
        return (all(map(self._fits, pair, self.codes)) for pair in pairs)

    def _known_code(self, language: str) -> str | None:
        code = iso_639_3(language)
        try:
            self.identifier.get_confidence(code or "")
        except RuntimeError:  # heliport has no model of it
            return None
        return code

    def _fits(self, text: str, code: str | None) -> bool:
        is_long = len(text) >= self.min_letters and sum(map(str.isalpha, text)) >= self.min_letters
        if code is None or not is_long:
            return True
        if self.identifier.identify(text, ignore_confidence=True) == code:
            return True
        ranked = self.identifier.identify_topk_with_score(text, NUM_RANKED)
        own: float = dict(ranked).get(code, ranked[-1][1])
        return bool(own - ranked[0][1] < self.margin)


def find_refusals(
    filters: Iterable[Filter], pairs: Sequence[Pair], words: Sequence[Pair]
) -> list[str | None]:
    """The name of the first filter that refuses each pair, or None if all accept it.

    Args:
        words: the pairs without placeholders.
    """
    refusals: list[str | None] = [None] * len(pairs)
    left = list(range(len(pairs)))
    for judge in filters:
        seen = words if judge.words_only else pairs
        kept = []
        answers = judge.accept([seen[number] for number in left])
        for number, is_kept in zip(left, answers, strict=True):
            if is_kept:
                kept.append(number)
            else:
                refusals[number] = judge.name
        left = kept
    return refusals
