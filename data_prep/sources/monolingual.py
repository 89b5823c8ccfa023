"""Text of one language, a sentence a line, packed or not; for denoising and language modelling."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_prep.corpus_settings import CorpusSettings
from data_prep.records import Record
from data_prep.sources.corpus import Corpus, make_record
from data_prep.sources.streams import open_lines
from mtmoe.errors import DataError
from mtmoe.files import check_input


def text_corpus(settings: CorpusSettings) -> Corpus:
    """The lines of a file; its pair is the language alone, its records have no second side.

    Raises:
        DataError: the file is not there.
    """
    path = Path(settings.path)
    check_input("corpora.path", path)
    read = functools.partial(read_text, settings)
    inputs = {settings.label: path}
    return Corpus(settings.title, settings.language, settings.licence, inputs, read)


def read_text(settings: CorpusSettings, counts: Counter[str]) -> Iterator[Record]:
    """The lines with text.

    Args:
        counts: see `align`.

    Raises:
        DataError: the file is damaged, not UTF-8, or has no text.
    """
    with open_lines(settings.path) as lines:
        for line, fault in lines:
            counts["entries"] += 1
            if fault:
                counts[fault] += 1
            elif record := make_record(line, line, settings.title, counts):
                yield record._replace(second="")
    if not counts["pairs"]:
        raise DataError(f"text must not be empty, but {settings.path} is. Give another file.")
