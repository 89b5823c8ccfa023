"""A few translations that a person can judge, picked without looking at how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtmoe.report.parallel_text import ParallelText

MIN_WORDS, MAX_WORDS = 5, 12


def pick_examples(texts: Sequence[ParallelText], count: int) -> list[tuple[ParallelText, int]]:
    """`count` sentences of different directions: (text, line) each.

    Of each direction the line of middle length among those of 5 to 12 source words is taken; lines
    that need no translation, or that another example shows already, are passed over.
    """
    picked: list[tuple[ParallelText, int]] = []
    shown: set[str] = set()
    for text in spread(texts):
        lines = [n for n in _suitable(text) if not shown & {text.source[n], text.target[n]}]
        if lines and len(picked) < count:
            line = lines[len(lines) // 2]
            shown |= {text.source[line], text.target[line]}
            picked.append((text, line))
    return picked


def spread(texts: Sequence[ParallelText]) -> list[ParallelText]:
    """Directions such that the first ones are of different pairs, forward and backward in turn.

    Args:
        texts: any directions; the first of a pair is its forward one.
    """
    pairs: dict[frozenset[str], list[ParallelText]] = {}
    for text in texts:
        pairs.setdefault(frozenset((text.source_lang, text.target_lang)), []).append(text)
    first = [pair.pop(n % len(pair)) for n, pair in enumerate(pairs.values())]
    return first + [text for pair in pairs.values() for text in pair]


def _suitable(text: ParallelText) -> list[int]:
    """Lines of 5 to 12 source words that differ from their translation, by length, then place."""
    lengths = {
        n: len(line.split())
        for n, line in enumerate(text.source)
        if line.casefold() != text.target[n].casefold()
    }
    return sorted(
        (n for n in lengths if MIN_WORDS <= lengths[n] <= MAX_WORDS), key=lengths.__getitem__
    )


def format_examples(
    picked: Sequence[tuple[ParallelText, int]],
    hypotheses: Mapping[tuple[str, str], Sequence[str]],
    systems: Sequence[str],
) -> str:
    """A block of lines for each example: source, reference, what each system wrote.

    Args:
        hypotheses: by (system, direction).
    """
    blocks = []
    for text, line in picked:
        said = {system: hypotheses[system, text.direction][line] for system in systems}
        rows = {"source": text.source[line], "reference": text.target[line], **said}
        width = max(map(len, rows))
        body = (f"  {name:<{width}}  {sentence}".rstrip() for name, sentence in rows.items())
        blocks.append("\n".join([text.direction, *body]))
    return "\n\n".join(blocks)
