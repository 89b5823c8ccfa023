"""Parallel text out of catalogues in a wheel, an archive or a folder: English with one language.

Archives are read in place and never unpacked. What an entry's English is: the `Default:` of
its comment; for a symbolic msgid (`label_save`) the text of the `en` catalogue beside it; else the
msgid itself.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data_prep.languages import canonical
from data_prep.normalise import (
    clean_text,
    has_control_characters,
    placeholders,
    remove_accelerator,
)
from data_prep.records import Record
from data_prep.sources.archives import Archive
from data_prep.sources.catalogues import Catalogue, Entry, read_catalogue
from data_prep.sources.plurals import plural_indices
from data_prep.sources.wheels import Package
from mtmoe.errors import DataError

logger = logging.getLogger(__name__)

MEMBER = re.compile(
    r"(?P<folder>[^/.][^/]*/(?:[^/.][^/]*/)*)(?P<language>[A-Za-z]{2,3}(?:[-_@.][\w-]+)*)"
    r"/LC_MESSAGES/(?P<domain>[^/]+?)\.(?P<kind>po|mo|json)"
)
SYMBOL = re.compile(
    r"""
      [a-z0-9]+ (?:[.-]\w+)* [_:] \w+ (?:[_:.-]+\w+)*   # label_save, list:user:notice.txt
    | \w+_\w+_\w+                                     # Select_Note_selector
    | [a-z]{2,} (?:\.[a-z]{3,})+                       # help.txt
    """,
    re.VERBOSE,
)
ICU_CHOICE = re.compile(r"\{\s*\w+\s*,\s*(?:plural|select|selectordinal)\b")
FLAT = re.compile(  # `po/de.po`, as folders of programs have it
    r"(?P<folder>(?:[^/.][^/]*/)+)(?P<language>[a-z]{2,3}(?:[-_@]\w+)*)(?P<domain>)\.(?P<kind>po|mo)"
)
KINDS = ("po", "mo", "json")  # of one catalogue, the first that exists is read


@dataclass(frozen=True)
class Member:
    """A catalogue inside a wheel."""

    path: str
    folder: str
    language: str  # as the wheel spells it
    domain: str
    kind: str


class Folder:
    """Catalogues of a folder on disk, by their path from its parent, without links out of it."""

    num_unsafe = 0

    def __init__(self, path: Path) -> None:
        root = path.resolve()
        inside = (p for p in sorted(root.rglob("*")) if p.suffix in (".po", ".mo") and p.is_file())
        safe = (p for p in inside if p.resolve().is_relative_to(root))
        self.paths = {f"{root.name}/{p.relative_to(root).as_posix()}": p for p in safe}
        self.sizes = {name: p.stat().st_size for name, p in self.paths.items()}

    def read(self, name: str) -> bytes:
        """All bytes of a file."""
        return self.paths[name].read_bytes()


class Wheel:
    """The catalogues of one package, or of what a user calls one.

    Args:
        of_user: its catalogues may also be named `po/de.po`.
    """

    def __init__(self, path: Path, package: Package, of_user: bool = False) -> None:
        self.tree = Folder(path) if path.is_dir() else Archive(path)
        self.package, self.of_user = package, of_user
        self._english: dict[tuple[str, str], dict[str, str]] = {}

    @cached_property
    def members(self) -> list[Member]:
        """Catalogues in a fixed order; paths of another form (`..`, hidden folders) are ignored."""
        best: dict[tuple[str, str, str], Member] = {}
        for path in sorted(self.tree.sizes):
            found = MEMBER.fullmatch(path) or (self.of_user and FLAT.fullmatch(path))
            if found:
                member = Member(path, **found.groupdict())
                key = (member.folder, member.language, member.domain)
                known = best.get(key)
                if known is None or KINDS.index(member.kind) < KINDS.index(known.kind):
                    best[key] = member
        return list(best.values())

    def languages(self) -> set[str]:
        """The languages of the wheel, in our spelling."""
        return {canonical(member.language) for member in self.members}

    def read(self, member: Member) -> Catalogue:
        """Parse one catalogue."""
        return read_catalogue(self.tree.read(member.path), member.path)

    def english(self, member: Member) -> dict[str, str]:
        """msgid -> English of the `en` catalogue beside `member`; empty where there is none."""
        key = (member.folder, member.domain)
        if key not in self._english:
            beside = [m for m in self.members if (m.folder, m.domain) == key and m.language == "en"]
            entries = self.read(beside[0]).entries if beside else []
            self._english[key] = {e.msgid: e.msgstr for e in entries if e.msgstr and not e.skip}
        return self._english[key]


def extract_language(wheel: Wheel, language: str, counts: Counter[str]) -> Iterator[Record]:
    """All usable pairs of English and `language` in a wheel.

    Args:
        counts: is told how many entries came in, and why entries were left out.
    """
    for member in wheel.members:
        if canonical(member.language) != language:
            continue
        catalogue = _read_if_whole(wheel, member, counts)
        for entry in catalogue.entries:
            counts["entries"] += 1
            for english, text in _texts(entry, catalogue, wheel, member, counts):
                record = _record(english, text, entry, wheel.package, counts)
                if record:
                    counts["pairs"] += 1
                    yield record


def _read_if_whole(wheel: Wheel, member: Member, counts: Counter[str]) -> Catalogue:
    """The catalogue; one that is damaged (some are published so) is told of, counted and empty."""
    try:
        return wheel.read(member)
    except DataError as error:
        logger.warning("%s", error)
        counts["damaged_catalogues"] += 1
        return Catalogue([])


def _texts(
    entry: Entry, catalogue: Catalogue, wheel: Wheel, member: Member, counts: Counter[str]
) -> list[tuple[str, str]]:
    """The (English, translation) pairs of one entry: one, or two if it has plural forms."""
    if entry.skip:
        counts[entry.skip] += 1
        return []
    if entry.plural_id:
        return _plural_texts(entry, catalogue.plural_header, counts)
    if not entry.msgstr.strip():
        counts["empty"] += 1
        return []
    english = _english_text(entry, wheel, member)
    if english is None:
        counts["no_english"] += 1
        return []
    if ICU_CHOICE.search(english) or ICU_CHOICE.search(entry.msgstr):
        counts["icu_choice"] += 1
        return []
    return [(english, entry.msgstr)]


def _english_text(entry: Entry, wheel: Wheel, member: Member) -> str | None:
    if entry.default is not None and entry.default.strip():
        return entry.default
    if member.kind == "json" or SYMBOL.fullmatch(entry.msgid):
        return wheel.english(member).get(entry.msgid)
    return entry.msgid


def _plural_texts(entry: Entry, header: str, counts: Counter[str]) -> list[tuple[str, str]]:
    indices = plural_indices(header)
    if indices is None or max(indices) not in entry.plural_forms:
        counts["plural_invalid"] += 1
        return []
    one, many = (entry.plural_forms.get(index, "") for index in indices)
    if not one.strip() or not many.strip():
        counts["empty"] += 1
        return []
    return [(entry.msgid, one), (entry.plural_id, many)]


def _record(
    english: str, text: str, entry: Entry, package: Package, counts: Counter[str]
) -> Record | None:
    context = entry.context
    if package.context_bar:
        head, bar, rest = english.rpartition("|")
        if bar and head and rest.strip() and "|" not in text:
            context, english = head, rest
    if package.accelerator:
        english = remove_accelerator(english, package.accelerator)
        text = remove_accelerator(text, package.accelerator)
    if has_control_characters(english) or has_control_characters(text):
        counts["control_characters"] += 1
    english, text = clean_text(english), clean_text(text)
    if not english or not text:
        counts["empty"] += 1
        return None
    if placeholders(english) != placeholders(text):
        counts["placeholders_differ"] += 1
        return None
    return Record(english, text, package.name, context)
