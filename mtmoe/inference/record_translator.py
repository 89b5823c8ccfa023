"""Records to ranked translations; one that cannot be translated keeps its place."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mtmoe.errors import ConfigError, DataError, MtmoeError
from mtmoe.inference.engine import Translator
from mtmoe.inference.records import Record
from mtmoe.inference.requests import EMPTY, LongLines, Request, Translation, join_chunks
from mtmoe.inference.search_config import SearchConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Defaults:
    """What holds for lines that do not say it themselves."""

    source_lang: str | None = None  # None: the translator's own for the target
    target_lang: str | None = None
    prefix: str = ""
    long_lines: LongLines = "split"


class Answer(NamedTuple):
    """A record and what was found for it."""

    record: Record  # with its languages, or with its mistake
    requests: list[Request]  # its texts between blanks
    ranked: list[Translation]  # at least one, best first; an empty one after a mistake


class RecordTranslator:
    """Translates records, whose languages may differ.

    Raises:
        ConfigError: the default languages are wrong.
    """

    def __init__(self, translator: Translator, config: SearchConfig, defaults: Defaults) -> None:
        self.translator, self.config, self.defaults = translator, config, defaults
        self._directions: dict[tuple[str | None, str | None], tuple[str, str]] = {}
        if defaults.target_lang is not None:
            self.direction(None, None)

    def translate(self, records: Sequence[Record]) -> list[Answer]:
        """The translations of each record; a mistake in one is logged and leaves the others be."""
        asked = [self._ask(record) for record in records]
        try:
            found = self._search(asked)
        except DataError:  # rare: which of them is it?
            asked = [self._check(*pair) for pair in asked]
            found = self._search(asked)
        answers = []
        for record, requests in asked:
            parts = record.chunks
            ranked = [next(found) for _ in requests]
            joined = join_chunks(parts, ranked, self.config.length_penalty)
            answers.append(Answer(record, requests, [EMPTY] if record.mistake else joined))
            if record.mistake:
                log.error("%s", record.mistake)
        return answers

    def _search(self, asked: Sequence[tuple[Record, list[Request]]]) -> Iterator[list[Translation]]:
        requests = [request for _, own in asked for request in own]
        long_lines = self.defaults.long_lines
        return iter(self.translator.translate_requests(requests, self.config, long_lines))

    def _ask(self, record: Record) -> tuple[Record, list[Request]]:
        """A record with its languages, and its texts as requests; none if it has a mistake."""
        if record.mistake or record.is_blank:
            return record, []
        try:
            languages = self.direction(record.source_lang, record.target_lang)
        except ConfigError as error:
            return replace(record, mistake=f"{record.name}: {error}"), []
        record = replace(record, source_lang=languages[0], target_lang=languages[1])
        prefix = record.prefix or self.defaults.prefix
        return record, [
            Request(text, *languages, "" if n else prefix, record.name)
            for n, text in enumerate(record.chunks[1::2])
        ]

    def _check(self, record: Record, requests: list[Request]) -> tuple[Record, list[Request]]:
        """The same, or the record with what the translator finds wrong with it."""
        try:
            for request in requests:
                self.translator.read_source(request, self.defaults.long_lines)
        except MtmoeError as error:
            return replace(record, mistake=str(error)), []
        return record, requests

    def direction(self, source_lang: str | None, target_lang: str | None) -> tuple[str, str]:
        """Languages of a record that names these, or None.

        Raises:
            ConfigError: one is unknown or missing, or both are the same.
        """
        named = source_lang, target_lang
        if named not in self._directions:
            self._directions[named] = self._choose_direction(*named)
        return self._directions[named]

    def _choose_direction(
        self, source_lang: str | None, target_lang: str | None
    ) -> tuple[str, str]:
        translator = self.translator
        target = target_lang or self.defaults.target_lang
        if target is None:
            raise ConfigError(
                "target language must be named, but is not. Name it in the line, or --target-lang."
            )
        source = source_lang or self.defaults.source_lang or translator.default_source(target)
        translator.check_direction(source, target)
        direction = f"{source}-{target}"
        if direction not in translator.directions:
            known = ", ".join(translator.directions)
            log.warning("the model was not trained on %s, but on %s: zero-shot.", direction, known)
        return source, target
