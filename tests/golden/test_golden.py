"""A checkpoint of this format, trained once (`make.py`), still gives its translations."""

from __future__ import annotations

from mtmoe.files import read_lines
from mtmoe.inference.engine import Translator
from tests.golden.make import CHECKPOINT, SOURCE, TRANSLATION
from tests.toy_data import toy_sentences


def test_an_old_checkpoint_gives_its_translations():
    found = Translator.from_checkpoint(CHECKPOINT).translate(read_lines(SOURCE), "aa", "bb")
    assert found == read_lines(TRANSLATION)


def test_the_golden_translations_are_mostly_right():
    references = {line[0]: line[1] for line in toy_sentences()}
    pairs = list(zip(read_lines(SOURCE), read_lines(TRANSLATION), strict=True))
    right = sum(references[source] == translation for source, translation in pairs)
    assert right >= len(pairs) // 2
