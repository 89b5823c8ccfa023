"""What became of each corpus in cleaning: counts, sizes, and examples of what was dropped."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from data_prep.languages import has_spaces

NUM_EXAMPLES = 10  # of each corpus and filter


def num_words(text: str, language: str) -> int:
    """Words; characters in a language that puts no spaces between words."""
    return len(text.split()) if has_spaces(language) else len("".join(text.split()))


class Tally:
    """Counts the rows of one pair; two equal languages stand for monolingual text."""

    def __init__(self, languages: tuple[str, str], filters: list[str]) -> None:
        self.languages, self.filters = languages, filters
        self.read: Counter[str] = Counter()  # by corpus
        self.dropped: Counter[tuple[str, str]] = Counter()  # by corpus and filter
        self.examples: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        self.sizes = {code: Counter[str]() for code in languages}

    def add(
        self, corpus: str, texts: tuple[Any, ...], reason: str | None, sized: bool = True
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
            for code, text in dict(zip(self.languages, texts, strict=True)).items():
                words, size = num_words(text, code), self.sizes[code]
                size.update(sentences_before=1, words_before=words)
                if reason is None:
                    size.update(sentences_after=1, words_after=words)

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
        return {"corpora": corpora, "sizes": {code: dict(s) for code, s in self.sizes.items()}}
