from __future__ import annotations

from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor

from data_prep.command import Run
from data_prep.config import Config, GettextSettings, VocabularySettings
from data_prep.vocabulary import MAX_REPEAT, balance, train_model
from mtmoe.errors import ConfigError

SAMPLE = Path(__file__).parents[1] / "samples/gettext"
LINES = [
    line for code in ("en", "de") for line in (SAMPLE / f"sample.{code}").read_text().split("\n")
]


def run(size: int) -> Run:
    config = Config(
        ("en", "de"), gettext=GettextSettings(), vocabulary=VocabularySettings(size=size)
    )
    return Run(config, Path(), Path())


def test_equal_text_gives_equal_bytes_and_any_text_comes_back() -> None:
    model = train_model(LINES, run(600))
    assert model == train_model(LINES, run(600))
    processor = SentencePieceProcessor(model_proto=model)
    assert processor.get_piece_size() == 600
    for text in ("Größe …", "ﬁle “%(name)s”", "🙂 漢字"):
        assert processor.decode(processor.encode(text)) == text
        assert processor.unk_id() not in processor.encode(text)


def test_small_languages_are_repeated_up_to_a_limit() -> None:
    lines = {"en": ["abcd"] * 100, "de": ["abcd"] * 40, "fr": ["abcd"]}
    sizes = {code: len(part) for code, part in balance(lines).items()}
    assert sizes == {"en": 100, "de": 100, "fr": MAX_REPEAT}


@pytest.mark.parametrize("size", [300, 50_000])
def test_a_size_that_does_not_fit_is_named(size: int) -> None:
    with pytest.raises(ConfigError, match=f"vocabulary.size must fit the text, but is {size}: .+"):
        train_model(LINES, run(size))
