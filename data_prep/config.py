"""The settings of a preparation, read from YAML and checked before anything is done."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from data_prep.corpus_settings import CorpusSettings, DebianSettings, ExcludedText, check_pair
from data_prep.languages import CODE, canonical
from mtmoe.errors import ConfigError
from mtmoe.files import check_input, decode_lines


def _check_range(name: str, value: object, low: float, high: float, whole: bool = True) -> None:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        kind = "whole number" if whole else "number"
        raise ConfigError(f"{name} must be a {kind}, but is {value!r}. Write a plain {kind}.")
    assert isinstance(value, int | float)
    if not low <= value <= high:
        nearest = f"{low:g} or more" if value < low else f"{high:g} or less"
        raise ConfigError(
            f"{name} must be between {low:g} and {high:g}, but is {value:g}. Give {nearest}."
        )


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, but is {value!r}.")


@dataclass(frozen=True)
class GettextSettings:
    """Software translations inside pinned wheels."""

    packages: tuple[str, ...] | None = None  # None: all that are pinned
    permissive_only: bool = False

    def __post_init__(self) -> None:
        _check_flag("gettext.permissive_only", self.permissive_only)


@dataclass(frozen=True)
class FilePair:
    """Parallel text of the user: line n of `source` is translated by line n of `target`."""

    pair: str
    source: str
    target: str

    def __post_init__(self) -> None:
        check_pair("files.pair", self.pair)
        for name in ("source", "target"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(
                    f"files.{name} must be text, but is {getattr(self, name)!r}. Put it into "
                    "quotes."
                )


@dataclass(frozen=True)
class Limits:
    """What cleaning keeps."""

    max_characters: int = 400
    max_words: int = 80
    max_word_characters: int = 40
    max_length_ratio: float = 3.0  # after 15 characters are added to each side
    min_letter_share: float = 0.5  # letters among the characters that are not space
    min_script_share: float = 0.5  # letters of the language's own script among letters
    min_letters_to_identify: int = 40  # shorter text is not asked for its language
    language_margin: float = 1.0  # heliport score by which another language must win
    match_placeholders: bool = True  # both sides must have the same ones
    min_number_match: float = 0.0  # likeness of the digits of both sides; 1: all equal; 0: any
    max_translations: int = 3  # different translations of one string that train keeps
    drop_near_duplicates: bool = False  # pairs that differ from another by case, signs or space

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            name, value = f"limits.{setting.name}", getattr(self, setting.name)
            if isinstance(setting.default, bool):
                _check_flag(name, value)
            elif name.endswith(("_share", "_match")):
                _check_range(name, value, 0, 1, whole=False)
            elif isinstance(setting.default, int):
                _check_range(name, value, 1, 1e6)
            else:
                _check_range(name, value, 0.01, 1e6, whole=False)


@dataclass(frozen=True)
class SplitSettings:
    """Sizes of the splits, in strings of the shared side, and how much is kept away from train."""

    test: int = 800
    valid: int = 500
    held_out_share: float = 0.1

    def __post_init__(self) -> None:
        _check_range("split.test", self.test, 1, 1e6)
        _check_range("split.valid", self.valid, 1, 1e6)
        _check_range("split.held_out_share", self.held_out_share, 0.001, 0.5, whole=False)


@dataclass(frozen=True)
class VocabularySettings:
    """The joint SentencePiece model."""

    size: int = 6000
    character_coverage: float = 1.0  # of the characters of each language
    max_lines: int = 200_000  # of one language that the model is trained on
    model: str | None = None  # an existing one in place of all that

    def __post_init__(self) -> None:
        _check_range("vocabulary.max_lines", self.max_lines, 100, 1e8)
        _check_range("vocabulary.size", self.size, 300, 1_000_000)
        coverage = self.character_coverage
        _check_range("vocabulary.character_coverage", coverage, 0.9, 1, whole=False)


def _check_language(language: object) -> None:
    if isinstance(language, bool):  # YAML reads a bare `no` as false
        raise ConfigError(f"languages must be text, but one is {language}. Put it into quotes.")
    plain = canonical(str(language))
    if plain != language or not CODE.fullmatch(plain):
        raise ConfigError(
            "languages must be plain lower-case codes such as de or pt_br, but one is "
            f"{language!r}." + (f" Write {plain}." if CODE.fullmatch(plain) else "")
        )


@dataclass(frozen=True)
class Config:
    """One preparation."""

    languages: tuple[str, ...]
    seed: int = 1
    gettext: GettextSettings | None = None
    debian: DebianSettings | None = None
    files: tuple[FilePair, ...] = ()
    corpora: tuple[CorpusSettings, ...] = ()
    exclude: tuple[ExcludedText, ...] = ()
    plain_punctuation: bool = False
    limits: Limits = field(default_factory=Limits)
    split: SplitSettings = field(default_factory=SplitSettings)
    vocabulary: VocabularySettings = field(default_factory=VocabularySettings)

    def __post_init__(self) -> None:
        _check_range("seed", self.seed, 0, 2**63)
        _check_flag("plain_punctuation", self.plain_punctuation)
        for language in self.languages:
            _check_language(language)
        if len(set(self.languages)) != len(self.languages) or len(self.languages) < 2:
            raise ConfigError(
                "languages must be at least two different ones, "
                f"but are {', '.join(self.languages) or 'none'}."
            )
        if not (self.is_english_centred or self.files or self.corpora):
            raise ConfigError(
                "a source must be given as gettext, debian, files or corpora, but none is. "
                "Add `gettext: {}` for software translations."
            )
        self._check_sources()

    @property
    def is_english_centred(self) -> bool:
        """Whether a source pairs English with every language."""
        of_user = any(corpus.is_english_centred for corpus in self.corpora)
        return self.gettext is not None or self.debian is not None or of_user

    def _check_sources(self) -> None:
        if self.is_english_centred and "en" not in self.languages:
            raise ConfigError(
                "languages must hold en for the sources gettext and debian, "
                f"but are {', '.join(self.languages)}. Add en."
            )
        known = ", ".join(self.languages)
        for key, named in (
            *(("files.pair", entry.pair) for entry in self.files),
            *(("corpora.pair", corpus.pair) for corpus in self.corpora if corpus.pair),
        ):
            if not set(named.split("-")) <= set(self.languages):
                raise ConfigError(
                    f"{key} must join two of the languages ({known}), but is {named}."
                )
        titles = [(corpus.title, corpus.pair or corpus.language) for corpus in self.corpora]
        for title, text in titles:
            if titles.count((title, text)) > 1:
                raise ConfigError(
                    f"corpora must have different names, but two are {title!r}. Give each a `name`."
                )
        for key, language in (
            *(("corpora.language", corpus.language) for corpus in self.corpora),
            *(("exclude.language", text.language) for text in self.exclude),
        ):
            if language and language not in self.languages:
                raise ConfigError(
                    f"{key} must be one of the languages ({known}), but is {language}."
                )


def pair_name(first: str, second: str) -> str:
    """The one name of a pair: English first, else in alphabetical order."""
    first, second = sorted((first, second), key=lambda code: (code != "en", code))
    return f"{first}-{second}"


def load_config(path: str | Path) -> Config:
    """Read and check a YAML file.

    Raises:
        ConfigError: the file is missing or no YAML, a key is unknown, a value out of range.
    """
    content = _read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(
            f"--config must hold keys and values, but {path} does not. "
            "Begin with `languages: [...]`."
        )
    return _build_config(content, str(path))


def _read_yaml(path: str | Path) -> Any:
    import yaml  # type: ignore[import-untyped]

    check_input("--config", path, ConfigError)
    data = Path(path).read_bytes()
    if b"\0" in data:  # ASCII in UTF-16 is UTF-8 too, but full of these
        raise ConfigError(
            f"--config must be UTF-8, but {path} holds NUL bytes, as UTF-16 does. Convert "
            "the file, e.g. by iconv."
        )
    try:
        root = yaml.compose("\n".join(decode_lines(data, str(path))), yaml.SafeLoader)
        _check_keys(root, str(path))
        return None if root is None else yaml.SafeLoader("").construct_document(root)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # 2020-13-41; 5,000 digits; [[[[
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(f"--config must be a YAML file, but {path} is not: {reason}.") from None


def _check_keys(root: Any, path: str) -> None:
    """Refuse a key that stands twice in one place: YAML would forget what stands at the first.

    Args:
        root: what `yaml.compose` gives; None for an empty file.
    """
    for mapping in (root, *(value for _, value in _items(root))):
        keys = [key.value for key, _ in _items(mapping)]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(
                    f"keys of {path} must stand once, but {key} stands twice. Join the two."
                )


def _items(node: Any) -> list[tuple[Any, Any]]:
    """The keys and values of a mapping, as nodes; nothing of other nodes."""
    from yaml import MappingNode

    return node.value if isinstance(node, MappingNode) else []


SECTIONS = {"limits": Limits, "split": SplitSettings, "vocabulary": VocabularySettings}


def _build_config(content: dict[str, Any], path: str) -> Config:
    values = dict(content)
    for name, kind in SECTIONS.items():
        if name in values:
            values[name] = _build(kind, values[name], f"{name}.", path)
    vocabulary = values.get("vocabulary")
    if vocabulary is not None and vocabulary.model is not None:
        _check_alone(content["vocabulary"])
        model = str(Path(path).parent / str(vocabulary.model))
        values["vocabulary"] = dataclasses.replace(vocabulary, model=model)
    if values.get("gettext") is not None:
        values["gettext"] = _build_gettext(values["gettext"], path)
    if values.get("debian") is not None:
        values["debian"] = _build(DebianSettings, values["debian"], "debian.", path)
    if "corpora" in values:
        entries = _list(values["corpora"] or [], "corpora")
        values["corpora"] = tuple(_build_corpus(entry, path) for entry in entries)
    if "files" in values:
        entries = _list(values["files"] or [], "files")
        folder = Path(path).parent
        values["files"] = tuple(_build_file_pair(entry, path, folder) for entry in entries)
    if "exclude" in values:
        entries = _list(values["exclude"] or [], "exclude")
        values["exclude"] = tuple(_build_excluded(entry, path) for entry in entries)
    values["languages"] = _list(values.get("languages", []), "languages")
    return _build(Config, values, "", path)


def _check_alone(values: dict[str, Any]) -> None:
    """Refuse settings of a vocabulary that is made, beside one that is there already."""
    for key in values:
        if key != "model":
            raise ConfigError(
                "vocabulary.model must stand alone, since nothing is trained then, but "
                f"vocabulary.{key} is given, too. Leave one of them out."
            )


def _build_gettext(values: Any, path: str) -> GettextSettings:
    if isinstance(values, dict) and values.get("packages") is not None:
        values = values | {"packages": _list(values["packages"], "gettext.packages")}
    return _build(GettextSettings, values, "gettext.", path)


def _build_file_pair(values: Any, path: str, folder: Path) -> FilePair:
    """A relative path starts at the folder of the YAML file."""
    pair = _build(FilePair, values, "files.", path)
    return dataclasses.replace(
        pair, source=str(folder / pair.source), target=str(folder / pair.target)
    )


def _build_corpus(values: Any, path: str) -> CorpusSettings:
    if isinstance(values, dict) and "columns" in values:
        values = values | {"columns": _list(values["columns"], "corpora.columns")}
    corpus = _build(CorpusSettings, values, "corpora.", path)
    if corpus.format == "mtdata":  # its path is an id
        return corpus
    return dataclasses.replace(corpus, path=str(Path(path).parent / corpus.path))


def _build_excluded(values: Any, path: str) -> ExcludedText:
    text = _build(ExcludedText, values, "exclude.", path)
    return dataclasses.replace(text, path=str(Path(path).parent / text.path))


def _list(value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{name} must be a list, but is {value!r}. Write [{value}].")
    return tuple(value)


Section = TypeVar("Section")


def _build(kind: type[Section], values: Any, prefix: str, path: str) -> Section:
    if not isinstance(values, dict):
        raise ConfigError(f"{prefix.rstrip('.')} in {path} must hold keys, but is {values!r}.")
    settings = dataclasses.fields(kind)  # type: ignore[arg-type]
    known = [setting.name for setting in settings]
    for key in values:
        if key not in known:
            raise ConfigError(
                f"keys of {path} must be known, but {prefix}{key} is not. Use one of: "
                f"{', '.join(known)}."
            )
    for setting in settings:
        required = setting.default is dataclasses.MISSING
        required &= setting.default_factory is dataclasses.MISSING
        if required and setting.name not in values:
            raise ConfigError(f"{prefix}{setting.name} must be given in {path}, but is not there.")
    return kind(**values)
