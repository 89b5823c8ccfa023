from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.config import Config, FilePair, load_config, pair_name
from mtmoe.errors import ConfigError, DataError

ROOT = Path(__file__).parents[2]
GOOD = "languages: [en, de]\ngettext: {}\n"


def load(folder: Path, text: str) -> Config:
    path = folder / "data.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_the_quickstart_configuration_is_read() -> None:
    config = load_config(ROOT / "recipes/quickstart/data.yaml")
    assert config.languages == ("en", "de", "es", "fr")
    assert (config.split.test, config.split.valid) == (800, 500)


def test_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    text = "languages: [en, de]\nfiles: [{pair: de-en, source: a.de, target: a.en}]\n"
    expected = FilePair("de-en", str(tmp_path / "a.de"), str(tmp_path / "a.en"))
    assert load(tmp_path, text).files == (expected,)


def test_test_sets_start_there_too(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD + "exclude: [{language: de, path: test.de}]")
    assert [text.path for text in config.exclude] == [str(tmp_path / "test.de")]


def test_pair_names() -> None:
    assert pair_name("de", "en") == pair_name("en", "de") == "en-de"
    assert pair_name("en", "af") == "en-af"
    assert pair_name("fr", "de") == "de-fr"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: '\x07'", "--config must be a YAML file, but .* is not: .*not allowed"),
        ("[1, 2]", "--config must hold keys and values"),
        ("a: [", "--config must be a YAML file, but .* is not: "),
        ("gettext: {}", "languages must be at least two different ones, but are none"),
        ("languages: en\ngettext: {}", r"languages must be a list, but is 'en'\. Write \[en\]"),
        ("languages: [en]\ngettext: {}", "languages must be at least two different ones, but are"),
        ("languages: [en, en]\ngettext: {}", "languages must be at least two different ones"),
        ("languages: [en, De]\ngettext: {}", "languages must be plain .* is 'De'. Write de"),
        ("languages: [en, fr_fr]\ngettext: {}", "languages must be plain .* 'fr_fr'. Write fr"),
        (
            "languages: [en, no]\ngettext: {}",
            "languages must be text, but one is False. Put it into quotes",
        ),
        ("languages: [de, fr]\ngettext: {}", "languages must hold en for the sources gettext"),
        (
            "languages: [en, de]",
            "a source must be given as gettext, debian, files or corpora, but none is",
        ),
        (GOOD + "colour: red", "keys of .*data.yaml must be known, but colour is not"),
        (GOOD + "limits: {max_wrods: 3}", "must be known, but limits.max_wrods is not. Use one of"),
        (GOOD + "limits: 3", "limits in .* must hold keys, but is 3"),
        (
            GOOD + "limits: {max_words: many}",
            "limits.max_words must be a whole number, but is 'many'",
        ),
        (GOOD + "limits: {min_letter_share: 2}", "limits.min_letter_share must be between 0 and 1"),
        (GOOD + "limits: {max_length_ratio: x}", "limits.max_length_ratio must be a number"),
        ("languages: [en, e]\ngettext: {}", "languages must be plain lower-case codes"),
        (
            GOOD + "split: {test: 0}",
            "split.test must be between 1 and .*, but is 0. Give 1 or more",
        ),
        (GOOD + "split: {held_out_share: 0.9}", "split.held_out_share must be between"),
        (GOOD + "vocabulary: {size: 10}", "vocabulary.size must be between 300 and .*, but is 10"),
        (
            GOOD + "vocabulary: {size: 600.5}",
            "vocabulary.size must be a whole number, but is 600.5",
        ),
        (GOOD + "seed: x", "seed must be a whole number, but is 'x'"),
        (GOOD + "files: [{pair: ende, source: a, target: b}]", "files.pair must be two languages"),
        (GOOD + "files: [{pair: en-it, source: a, target: b}]", "files.pair must join two of the"),
        (GOOD + "files: [{pair: en-de, source: a}]", "files.target must be given in"),
        ("languages: [en, de]\ngettext: {permissive_only: 3}", "gettext.permissive_only must be"),
        (GOOD + "exclude: [{language: it, path: x}]", "exclude.language must be one of the lang"),
        (GOOD + "exclude: [{language: de}]", "exclude.path must be given in"),
        (GOOD + "exclude: [{language: de, path: 3}]", "exclude.path must be text, but is 3"),
        (GOOD + "limits: {match_placeholders: 3}", "limits.match_placeholders must be true or fal"),
        (GOOD + "limits: {min_number_match: 2}", "limits.min_number_match must be between 0 and"),
        (GOOD + "plain_punctuation: 1", "plain_punctuation must be true or false, but is 1"),
        ("languages: [en, de]\ngettext: {packages: x}", "gettext.packages must be a list"),
        (GOOD + "files: [{pair: en-de, source: 1, target: a}]", "files.source must be text, but "),
        (GOOD + "files: [{pair: en-de, source: a, target: }]", "files.target must be text, but is"),
        (GOOD + "corpora: [{format: [tsv], path: a}]", "corpora.format must be among .* is .'tsv"),
        (GOOD + "seed: 2020-13-41", "--config must be a YAML file, but .* is not: month must be"),
        (GOOD + f"seed: 1{'0' * 5000}", "--config must be a YAML file, but .* is not: Exceeds"),
        ("languages: " + "[" * 2000, "--config must be a YAML file, but .* is not: "),
        (GOOD + "seed: 1\nseed: 2", "keys of .*data.yaml must stand once, but seed stands twice"),
        (GOOD + "split: {test: 1, test: 2}", "must stand once, but test stands twice"),
        (
            GOOD + "vocabulary: {model: m, size: 500}",
            "vocabulary.model must stand alone, .* but vocabulary.size is given, too",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--config must be a file, but is not there: .*none.yaml"
    ):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="--config must be a file, but is a folder: "):
        load_config(tmp_path)


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le"])
def test_other_encodings_are_named(tmp_path: Path, coding: str) -> None:
    (tmp_path / "data.yaml").write_bytes(GOOD.encode(coding))
    with pytest.raises(ConfigError, match=r"--config must be UTF-8, .* NUL bytes, as UTF-16 does"):
        load_config(tmp_path / "data.yaml")
    (tmp_path / "data.yaml").write_bytes("# für mich\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"data.yaml line 1 has the byte 0xfc at column 4"):
        load_config(tmp_path / "data.yaml")


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(GOOD, "utf-8-sig")
    assert load_config(tmp_path / "data.yaml").languages == ("en", "de")
