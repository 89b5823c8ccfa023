"""Debian's translated package descriptions: titles, paragraphs and list items, paired with English.

English and translation belong together if they have one `Description-md5`. A description is a title
and paragraphs. Titles always pair; paragraphs pair if both sides have equally many, items of a list
if both lists have equally many.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from data_prep.config import Config, pair_name
from data_prep.normalise import clean_text
from data_prep.records import Document, Record
from data_prep.sources.apt import read_index
from data_prep.sources.corpus import Corpus, make_record
from data_prep.sources.streams import open_lines

NAME = "debian"
LICENCE = "as each package described; free by Debian's guidelines"
CODES = {"zh_hans": "zh_CN", "zh_hant": "zh_TW"}  # where Debian's code is not ours in other letters
ITEM = re.compile(r"\s*(?:[*•·o+-]|\d+[.)])\s+")


class Description(NamedTuple):
    """A package in one language."""

    title: str
    paragraphs: tuple[tuple[str, ...], ...]  # items of each; a plain paragraph is one item


def debian_code(language: str) -> str:
    """How Debian spells a language: `pt_br` gives `pt_BR`."""
    base, *rest = language.split("_")
    return CODES.get(language) or "_".join([base, *(part.upper() for part in rest)])


def debian_folder(cache_folder: Path) -> Path:
    """Where the descriptions lie in the cache."""
    return cache_folder / NAME


def debian_corpora(config: Config, cache_folder: Path) -> list[Corpus]:
    """One corpus for each language that the cache has descriptions in."""
    folder = debian_folder(cache_folder)
    index = read_index(folder) if config.debian else {}
    english = index.get("en", {})
    corpora = []
    for language in config.languages:
        names = index.get(debian_code(language), {})
        if language != "en" and names:
            inputs = {f"{NAME}/{name}": folder / name for name in sorted({**english, **names})}
            pair = _PairFiles(folder, tuple(sorted(english)), tuple(sorted(names)))
            corpora.append(Corpus(NAME, pair_name("en", language), LICENCE, inputs, pair.records))
    return corpora


class _PairFiles(NamedTuple):
    folder: Path
    english: tuple[str, ...]
    other: tuple[str, ...]

    def descriptions(self) -> Iterator[tuple[Description, Description]]:
        """Distinct (English, other) descriptions, in the order of the other's files."""
        english = _english(self.folder, self.english)
        known = set()
        for name in self.other:
            for checksum, lines in read_stanzas(self.folder / name):
                if checksum in english and checksum not in known:
                    known.add(checksum)
                    yield parse(english[checksum]), parse(lines)

    def records(self, counts: Counter[str]) -> Iterator[Record | Document]:
        """Titles and paragraphs as pairs, and each description as a document; no row twice."""
        known: set[int] = set()
        for english, other in self.descriptions():
            counts["entries"] += 1
            document = make_document(english, other)
            if document and not _is_known(document, known):
                counts["documents"] += 1
                yield document
            for texts in pair_texts(english, other, counts):
                if _is_known(texts, known):
                    counts["duplicates"] += 1
                elif record := make_record(*texts, NAME, counts):
                    yield record


def _is_known(row: tuple[str, ...], known: set[int]) -> bool:
    """Whether the row was there before; it is now."""
    size = len(known)
    known.add(hash(row))
    return len(known) == size


@cache
def _english(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    return dict(stanza for name in names for stanza in read_stanzas(folder / name))


def read_stanzas(path: Path) -> Iterator[tuple[str, str]]:
    """(Description-md5, the lines of the description) of each package in a Translation file."""
    checksum, lines = "", []
    with open_lines(path) as stream:
        for line, _ in stream:
            if line.startswith("Description-md5:"):
                checksum = line.partition(":")[2].strip()
            elif line.startswith("Description-"):
                lines = [line.partition(":")[2].strip()]
            elif line.startswith(" ") and lines:
                lines.append(line[1:])
            elif not line:
                if checksum and lines:
                    yield checksum, "\n".join(lines)
                checksum, lines = "", []
    if checksum and lines:
        yield checksum, "\n".join(lines)


def parse(lines: str) -> Description:
    """A description out of its lines, without the space that each began with.

    ` .` ends a paragraph; a line that begins with one more space is an item of a list, or goes on
    with one.
    """
    title, *body = lines.split("\n")
    paragraphs: list[tuple[str, ...]] = []
    items: list[str] = []
    for line in [*body, "."]:
        if line.strip() in ("", "."):
            if items:
                paragraphs.append(tuple(items))
            items = []
        elif found := ITEM.match(line):
            items.append(line[found.end() :])
        elif items:
            items[-1] += f" {line.strip()}"
        else:
            items.append(line.strip())
    return Description(title, tuple(paragraphs))


def pair_texts(
    english: Description, other: Description, counts: Counter[str]
) -> Iterator[tuple[str, str]]:
    """The (English, other) strings that belong together."""
    yield english.title, other.title
    if len(english.paragraphs) != len(other.paragraphs):
        counts["paragraphs_differ"] += 1
        return
    for first, second in zip(english.paragraphs, other.paragraphs, strict=True):
        if len(first) == len(second):
            yield from zip(first, second, strict=True)
        else:
            counts["items_differ"] += 1


def make_document(english: Description, other: Description) -> Document | None:
    """Titles and first paragraphs; None if a side lacks one."""
    if not english.paragraphs or not other.paragraphs:
        return None
    texts = (" ".join(side.paragraphs[0]) for side in (english, other))
    document = Document(clean_text(english.title), clean_text(other.title), *map(clean_text, texts))
    return document if all(document) else None
