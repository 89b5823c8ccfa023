"""Translation memories (TMX 1.4), read as a stream: a unit is held, never the file."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from data_prep.config import pair_name
from data_prep.corpus_settings import CorpusSettings
from data_prep.languages import canonical
from data_prep.records import Record
from data_prep.sources.corpus import Corpus, make_record
from data_prep.sources.streams import GuardedStream, open_packed
from mtmoe.errors import DataError
from mtmoe.files import check_input

BLOCK_BYTES = 1 << 16
MAX_UNIT_CHARACTERS = 1 << 20
INLINE_CODES = frozenset({"bpt", "ept", "ph", "it", "ut"})  # markup of a document, no words


def tmx_corpus(settings: CorpusSettings) -> Corpus:
    """The pairs of a .tmx file.

    Raises:
        DataError: the file is not there.
    """
    path = Path(settings.path)
    check_input("corpora.path", path)
    pair = pair_name(*settings.pair.split("-"))
    read = functools.partial(read_tmx, settings)
    return Corpus(settings.title, pair, settings.licence, {settings.label: path}, read)


class _Units:
    """Collects the segments of each unit by language, as expat comes along them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.done: list[dict[str, str]] = []
        self.unit: dict[str, str] = {}
        self.language = ""
        self.parts: list[str] | None = None  # of the open segment
        self.num_codes = self.num_characters = 0
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.text
        self.parser.EntityDeclHandler = self.refuse_entity

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "tu":
            self.unit, self.num_characters = {}, 0
        elif tag == "tuv":
            self.language = canonical(attributes.get("xml:lang") or attributes.get("lang") or "")
        elif tag == "seg":
            self.parts = []
        elif tag in INLINE_CODES:
            self.num_codes += 1

    def text(self, data: str) -> None:
        if self.parts is not None and not self.num_codes:
            self.num_characters += len(data)
            if self.num_characters <= MAX_UNIT_CHARACTERS:
                self.parts.append(data)

    def end(self, tag: str) -> None:
        if tag == "seg" and self.parts is not None:
            self.unit.setdefault(self.language, "".join(self.parts))
            self.parts = None
        elif tag in INLINE_CODES:
            self.num_codes -= 1
        elif tag == "tu":
            self.done.append({} if self.num_characters > MAX_UNIT_CHARACTERS else self.unit)

    def refuse_entity(self, *_: object) -> None:
        raise DataError(
            f"a translation memory must declare no entities, but {self.name} does; they can grow "
            "without bounds. Write the text in their place."
        )

    def feed(self, data: bytes) -> list[dict[str, str]]:
        """The units that end in `data`; no data is the end of the file."""
        try:
            self.parser.Parse(data, not data)
        except (expat.ExpatError, LookupError, ValueError) as error:  # the last two: of encodings
            raise DataError(
                f"a translation memory must be XML, but {self.name} is not: {error}. Repair it."
            ) from None
        done, self.done = self.done, []
        return done


def read_tmx(settings: CorpusSettings, counts: Counter[str]) -> Iterator[Record]:
    """The pairs of a translation memory, in the order of `pair_name`.

    `en-US` is found as `en` if the memory has no plain `en`.

    Args:
        counts: gets `entries`, `no_pair` (units without both languages, or longer than a
            megabyte), `empty` and `control_characters`.

    Raises:
        DataError: it is no XML, declares entities, or has no unit with both languages.
    """
    first, second = pair_name(*settings.pair.split("-")).split("-")
    path = Path(settings.path)
    units = _Units(str(path))
    with open_packed(path) as stream:
        packed = path.stat().st_size
        guarded = GuardedStream(stream, str(path), packed)
        data = b"<"
        while data:
            data = guarded.read(BLOCK_BYTES)
            for unit in units.feed(data):
                counts["entries"] += 1
                texts = (_side(unit, first), _side(unit, second))
                if texts[0] is None or texts[1] is None:
                    counts["no_pair"] += 1
                elif record := make_record(texts[0], texts[1], settings.title, counts):
                    yield record
    if not counts["pairs"]:
        raise DataError(
            f"a translation memory must have units in {first} and {second}, but {path} has none. "
            "Check corpora.pair."
        )


def _side(unit: dict[str, str], language: str) -> str | None:
    variants = (text for code, text in sorted(unit.items()) if code.split("_")[0] == language)
    return unit.get(language) or next(variants, None)
