from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from mtmoe.data.batching import pad, source_tags, tag_source
from mtmoe.errors import CheckpointError, ConfigError, DataError
from mtmoe.inference import engine
from mtmoe.inference.beam_search import search
from mtmoe.inference.engine import Translator, find_device
from mtmoe.inference.hypotheses import Task
from mtmoe.inference.requests import Request
from mtmoe.inference.search_config import SearchConfig
from tests.inference.tiny_model import TEXT, write_tiny_checkpoint

LINES = [*TEXT, "", "   ", "File.", *TEXT[:3], "\t", "a b c d e"]


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    return Translator.from_checkpoint(write_tiny_checkpoint(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def expected(translator: Translator) -> list[str]:
    return [translator.translate([line], "en", "de")[0] for line in LINES]


@pytest.mark.parametrize("max_tokens", [1, 40, 4000])
def test_each_line_gets_its_own_translation_in_its_own_place(
    translator: Translator, expected: list[str], max_tokens: int
) -> None:
    assert len({line for line in expected if line}) > 10  # else order would not show
    assert translator.translate(LINES, "en", "de", max_tokens=max_tokens) == expected


def test_threads_are_a_few_for_each_core_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    path = write_tiny_checkpoint(tmp_path)
    assert Translator.from_checkpoint(path, threads=8).num_threads == 8
    assert not caplog.records
    assert Translator.from_checkpoint(path, threads=1000).num_threads == 8
    assert "threads are 8, not 1000" in caplog.text


@pytest.mark.parametrize("num_threads", [1, 3])
def test_threads_change_nothing(
    translator: Translator,
    expected: list[str],
    num_threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("mtmoe.inference.shares.SMALL_BATCH", 20)
    monkeypatch.setattr(translator, "num_threads", num_threads)
    assert translator.translate(LINES, "en", "de") == expected
    assert torch.get_num_threads() == before


def test_order_of_input_changes_nothing_but_the_order(
    translator: Translator, expected: list[str]
) -> None:
    assert translator.translate(LINES[::-1], "en", "de") == expected[::-1]


def test_empty_and_white_lines_give_empty_lines(translator: Translator) -> None:
    found = translator.translate(["", " ", "Save", "\t", "\u2028", "\ufeff"], "en", "de")
    assert [bool(line) for line in found] == [False, False, True, False, False, False]


def test_no_lines_give_no_lines(translator: Translator) -> None:
    assert translator.translate([], "en", "de") == []


def test_a_line_separator_inside_a_line_reads_as_a_space(translator: Translator) -> None:
    plain = translator.translate(["Save the file."], "en", "de")
    for separator in "\t", "\r", "\x85", "\u2028":
        assert translator.translate([f"Save the{separator}file."], "en", "de") == plain


def test_no_output_has_a_line_end(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    dirty = lambda sentences: ["a\nb\u2028c\x85 d\r" for _ in sentences]  # noqa: E731
    monkeypatch.setitem(vars(translator.vocabulary), "decode", dirty)
    assert translator.translate(["Save"], "en", "de") == ["a b c  d"]


def test_a_line_too_long_for_the_model_is_translated_in_parts(translator: Translator) -> None:
    sentences = ["Choose a language: German, French.", "Delete the selected files, no windows!"]
    assert max(map(len, translator.vocabulary.encode(sentences))) < 29  # 64 / 2 - tags and end
    parts = translator.translate(sentences, "en", "de")
    assert translator.translate([" ".join(sentences)], "en", "de") == [" ".join(parts)]


def test_a_word_too_long_for_the_model_is_translated_in_parts(translator: Translator) -> None:
    found = translator.translate(["o" * 500], "en", "de")
    assert len(found[0]) > 100


def test_the_language_tags_reach_encoder_and_decoder(translator: Translator) -> None:
    vocabulary = translator.vocabulary
    tags = source_tags(vocabulary, translator.encoder_tags, "en", "fr")
    source = tag_source(tags, vocabulary.encode(["Save the file."])[0])
    forbidden = torch.tensor([0, 1, 3, *(vocabulary.tag(x) for x in translator.languages)])
    task = Task(pad([source]), torch.tensor([vocabulary.tag("fr")]), forbidden)
    ids = search(translator.model, task, SearchConfig(beam=3, length_penalty=0.5))[0][0].ids
    found = translator.translate(["Save the file."], "en", "fr", beam=3, length_penalty=0.5)
    assert found == [vocabulary.decode([ids])[0].strip()]


def test_a_repeated_line_is_translated_once(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    monkeypatch.setattr(engine, "search", lambda *a: rows.append(len(a[1].source)) or search(*a))
    assert len(set(translator.translate(["Save", "Open", "Save", "Save "], "en", "de"))) == 2
    assert sum(rows) == 2


def test_unknown_languages_are_refused_with_the_known_ones(translator: Translator) -> None:
    with pytest.raises(ConfigError, match="source language must be one of de, en, fr, but is 'xx'"):
        translator.translate(["a"], "xx", "de")
    with pytest.raises(ConfigError, match="target language must be one of de, en, fr, but is 'DE'"):
        translator.translate(["a"], "en", "DE")
    with pytest.raises(
        ConfigError, match="must differ from the source language, but both are 'de'"
    ):
        translator.translate(["a"], "de", "de")


def test_the_source_language_is_the_only_one_or_english(tmp_path: Path) -> None:
    directions = ("de-en", "fr-en", "en-de", "fr-de", "fr-es")
    path = write_tiny_checkpoint(tmp_path, ("de", "en", "es", "fr", "it"), directions)
    translator = Translator.from_checkpoint(path)
    assert translator.default_source("es") == "fr"
    assert translator.default_source("de") == "en"
    with pytest.raises(ConfigError, match=r"named to translate into 'en'.* Give one of de, fr"):
        translator.default_source("en")
    with pytest.raises(ConfigError, match=r"into 'it'.* Give one of de, en, es, fr"):
        translator.default_source("it")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"beam": 0}, "beam must be between 1 and 200, but is 0"),
        ({"max_tokens": -1}, "max_tokens must be at least 1, but is -1"),
        ({"length_penalty": -0.5}, "length_penalty must be between 0 and 10, but is -0.5"),
        ({"length_penalty": 1000}, "length_penalty must be between 0 and 10, but is 1000"),
        ({"length_penalty": float("nan")}, "length_penalty must be .*, but is nan"),
    ],
)
def test_wrong_options_are_refused(
    translator: Translator, option: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        translator.translate(["a"], "en", "de", **option)


@pytest.mark.parametrize("temperature", [0.0, 1e-40, 1e39, float("inf"), float("nan")])
def test_temperatures_that_leave_no_probabilities_are_refused(temperature: float) -> None:
    with pytest.raises(
        ConfigError, match=r"temperature must be between 0\.000001 and 1000000, but"
    ):
        SearchConfig(sampling=True, temperature=temperature)


def test_a_limit_beyond_all_integers_is_none(translator: Translator) -> None:
    free = translator.translate(["a"], "en", "de")
    assert translator.translate(["a"], "en", "de", max_length=10**30) == free


def test_one_line_is_not_taken_for_many(translator: Translator) -> None:
    with pytest.raises(DataError, match=r"lines must be a list of lines, but are one str\. Write"):
        translator.translate("Save the file.", "en", "de")


def test_what_is_no_str_is_named(translator: Translator) -> None:
    lines: list[Any] = ["a", None]
    with pytest.raises(DataError, match=r"text of line 2 must be a str, but is None\."):
        translator.translate(lines, "en", "de")
    with pytest.raises(DataError, match=r"prefix of a line must be a str, but is 5\."):
        Request("a", "en", "de", prefix=cast(Any, 5))


@pytest.mark.parametrize("targets", [["a", "b"], [], "a"])
def test_each_line_must_have_its_translation(
    translator: Translator, targets: str | list[str]
) -> None:
    with pytest.raises(DataError, match=r"as many translations as there are lines \(1\), but is "):
        translator.score([Request("a", "en", "de")], targets, SearchConfig())


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"threads": 0}, "threads must be at least 1, but is 0"),
        ({"expert_memory": -1}, "expert_memory must be 0 or above, but is -1"),
    ],
)
def test_wrong_budgets_are_refused(tmp_path: Path, budget: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        Translator.from_checkpoint(write_tiny_checkpoint(tmp_path), **budget)


def test_a_model_without_numbers_gives_no_scores(tmp_path: Path) -> None:
    translator = Translator.from_checkpoint(write_tiny_checkpoint(tmp_path))
    with torch.no_grad():
        for parameter in translator.model.decoder[0].parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="must give probabilities, but gives no number"):
        translator.score([Request("a", "en", "de")], ["b"], SearchConfig())


def test_a_model_without_positions_for_a_sentence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_positions of the checkpoint must be at least 16"):
        Translator.from_checkpoint(write_tiny_checkpoint(tmp_path, max_positions=8))


def test_a_missing_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not there: .*none\.pt"):
        Translator.from_checkpoint(tmp_path / "none.pt")


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="but PyTorch finds no cuda"):
        find_device("cuda")
    with pytest.raises(ConfigError, match="device must be cpu, cuda or auto, but is 'tpu'"):
        find_device("tpu")
