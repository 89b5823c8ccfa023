"""What became of each corpus in cleaning: counts, sizes, and examples of what was dropped."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from typing import Any

from data_prep.languages import has_spaces

NUM_EXAMPLES = 10  # of each corpus and filter
SIZES = ("sentences_before", "words_before", "sentences_after", "words_after")


@functools.cache
def _has_spaces(language: str) -> bool:
    return has_spaces(language)


def num_words(text: str, language: str) -> int:
    """Words; characters in a language that puts no spaces between words."""
    words = text.split()
    return len(words) if _has_spaces(language) else sum(map(len, words))


class Tally:
    """Counts the rows of one pair; two equal languages stand for monolingual text."""

    def __init__(self, languages: tuple[str, str], filters: list[str]) -> None:
        self.filters = filters
        self.read: Counter[str] = Counter()  # by corpus
        self.dropped: Counter[tuple[str, str]] = Counter()  # by corpus and filter
        self.examples: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        self.sizes = {code: dict.fromkeys(SIZES, 0) for code in languages}

    def add(
        self, corpus: str, texts: tuple[str, str], reason: str | None, sized: bool = True
    ) -> None:
        """Note a row: kept if `reason` is None, else dropped by that filter.

        Args:
            sized: whether it counts as sentences and words of its languages.
        """
        self.read[corpus] += 1
        if reason is not None:
            self.dropped[corpus, reason] += 1
            examples = self.examples[corpus, reason]
            if len(examples) < NUM_EXAMPLES:
                examples.append((texts[0][:1000], texts[1][:1000]))
        if sized:
            # equal languages have equal texts, which count once
            for (code, size), text in zip(self.sizes.items(), texts, strict=False):
                words = num_words(text, code)
                size["sentences_before"] += 1
                size["words_before"] += words
                size["sentences_after"] += reason is None
                size["words_after"] += words if reason is None else 0

    def merge(self, later: Tally) -> None:
        """Add what a tally of the rows after these has counted."""
        self.read += later.read
        self.dropped += later.dropped
        for place, examples in later.examples.items():
            known = self.examples[place]
            known += examples[: NUM_EXAMPLES - len(known)]
        for code, size in later.sizes.items():
            for name, count in size.items():
                self.sizes[code][name] += count

    def totals(self) -> dict[str, int]:
        """Rows in, dropped by each filter, and out, over all corpora."""
        dropped = {name: 0 for name in self.filters}
        for (_, name), number in self.dropped.items():
            dropped[name] += number
        total = self.read.total()
        return {"in": total, **dropped, "out": total - sum(dropped.values())}

    def report(self) -> dict[str, Any]:
        """For JSON: by corpus what was read, kept and dropped, and the sizes by language."""
        corpora = {}
        for corpus, number in sorted(self.read.items()):
            dropped = {
                name: {"count": count, "examples": self.examples[corpus, name]}
                for name in self.filters
                if (count := self.dropped[corpus, name])
            }
            kept = number - sum(self.dropped[corpus, name] for name in self.filters)
            corpora[corpus] = {"read": number, "kept": kept, "dropped": dropped}
        return {"corpora": corpora, "sizes": self.sizes}
