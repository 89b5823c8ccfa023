from __future__ import annotations

import json

import pytest

from mtmoe.errors import ConfigError
from mtmoe.inference.formats import Format, parse_columns, read_record, write_record
from mtmoe.inference.records import Record
from mtmoe.inference.requests import EMPTY, Translation
from mtmoe.inference.text import MAX_LINE_BYTES, RawLine

JSON = Format(reads_json=True, writes_json=True)
FOUND = [Translation("Ja", -0.5, ("▁Ja", "</s>"), (-0.25, -0.75)), Translation("Nein", -1.0)]


def raw(text: str | bytes) -> RawLine:
    data = text.encode() if isinstance(text, str) else text
    return RawLine(data, "in.txt", 3, 7, len(data))


def read(text: str | bytes, form: Format) -> Record:
    return read_record(raw(text), form)


def write(text: str, form: Format) -> str:
    return write_record(read(text, form), FOUND[: form.num_best], form, {})


def tsv(columns: str, **options: int) -> Format:
    return Format(columns=parse_columns(columns), **options)


@pytest.mark.parametrize(
    ("option", "columns"),
    [
        ("2", {"text": 2}),
        ("text=2,target_lang=1", {"text": 2, "target_lang": 1}),
        (" source_lang=3 , text=1 ", {"text": 1, "source_lang": 3}),
    ],
)
def test_columns_have_numbers_and_names(option: str, columns: dict[str, int]) -> None:
    assert parse_columns(option) == columns


@pytest.mark.parametrize(
    "option", ["", "x", "0", "-1", "2,3", "title=2", "text=", "text=1.5", "target_lang=2", "²"]
)
def test_wrong_columns_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="--tsv must "):
        parse_columns(option)


def test_tables_and_json_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="--tsv must be left out with JSON"):
        Format(writes_json=True, columns={"text": 1})


def test_a_table_keeps_its_columns_and_gets_another() -> None:
    assert write("7\tYes\tx\r", tsv("2")) == "7\tYes\tx\tJa\n"
    assert write("7\tYes", tsv("2", has_scores=True)) == "7\tYes\t-0.500000\tJa\n"
    rows = "7\tYes\t-0.500000\tJa\n7\tYes\t-1.000000\tNein\n"
    assert write("7\tYes", tsv("2", num_best=2)) == rows
    assert write("", tsv("2")) == "\n"


def test_a_table_may_name_languages_and_prefix_and_leave_them_empty() -> None:
    form = tsv("text=1,source_lang=2,target_lang=3,prefix=4")
    found = read("Yes\ten\t\tJ", form)
    assert (found.text, found.source_lang, found.target_lang) == ("Yes", "en", None)
    assert (found.prefix, found.number, found.name) == ("J", 7, "in.txt line 3")


def test_a_short_row_is_a_mistake_that_keeps_its_place() -> None:
    record = read("a\tb", tsv("3"))
    assert record.mistake.startswith("a line must have at least 3 columns, but in.txt line 3 has 2")
    assert write_record(record, [EMPTY], tsv("3"), {}) == "a\tb\t\n"


def test_json_keeps_unknown_keys_and_their_order() -> None:
    line = '{"id": 12345678901234567890, "text": "Yes", "x": {"y": [1.5, null, "ü"]}}'
    found = json.loads(write(line, JSON))
    assert list(found)[:3] == ["id", "text", "x"]
    assert {key: found[key] for key in ("id", "text", "x")} == json.loads(line)
    assert (found["translation"], found["score"]) == ("Ja", -0.5)
    assert found["words"] == [["Ja", -0.25], ["</s>", -0.75]]
    assert "n_best" not in found


def test_blank_lines_between_json_stay() -> None:
    assert write("  ", JSON) == "\n"


def test_lone_surrogates_stay_escaped() -> None:
    assert "\\ud800" in write('{"text": "Yes", "x": "\\ud800"}', JSON)


@pytest.mark.parametrize(
    "line",
    ["{", "nul", '{"text": "a"} {"text": "b"}', '{"text": "a", "x": NaN}', "[" * 100_000,
     "1" * 9999, '{"text": "a", "x": 1e999}', '{"text": "a", "x": -Infinity}', "\udcff"],
)  # fmt: skip
def test_broken_json_is_a_mistake_that_names_the_line(line: str) -> None:
    record = read(line.encode("utf-8", "surrogateescape"), JSON)
    assert record.mistake.startswith("a line must be a JSON object, but in.txt line 3 is none (")
    assert json.loads(write_record(record, [EMPTY], JSON, {})) == {"error": record.mistake}


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ('{"id": 7, "text": "a", "prefix": 1}', "prefix must be a string, but in {} is 1."),
        ('{"id": 7, "text": null}', "text must be a string, but in {} is null."),
        ('{"id": 7}', 'a line must be a JSON object with the key "text", but {} is not.'),
    ],
)
def test_a_mistake_in_a_value_keeps_the_keys(line: str, mistake: str) -> None:
    record = read(line, JSON)
    assert record.mistake == f"{mistake.format('in.txt line 3')} Correct it."
    kept = json.loads(write_record(record, [EMPTY], JSON, {}))
    assert kept == {**json.loads(line), "error": record.mistake}


def test_the_error_of_an_earlier_run_goes_when_the_line_is_translated() -> None:
    assert "error" not in json.loads(write('{"text": "Yes", "error": "text must be"}', JSON))


def test_null_names_no_language() -> None:
    record = read('{"text": "a", "target_lang": null}', JSON)
    assert (record.target_lang, record.mistake) == (None, "")


def test_an_oversized_line_is_a_mistake_in_every_format() -> None:
    line = RawLine(b"", "in.txt", 3, 7, MAX_LINE_BYTES + 1)
    plain = Format(num_best=2)
    for form, wanted in ((Format(), "\n"), (plain, "7\t0.000000\t\n"), (tsv("1"), "\n")):
        record = read_record(line, form)
        assert "bytes, but in.txt line 3 has 1048577. Split it." in record.mistake
        assert write_record(record, [EMPTY], form, {}) == wanted
