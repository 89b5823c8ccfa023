"""Settings of the sources that a user points at: Debian's mirrors, files, folders and archives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from data_prep.languages import CODE
from mtmoe.errors import ConfigError

# format -> what it needs beside a path: "pair" or "language" or nothing
FORMATS = {
    "moses": "pair",
    "tsv": "pair",
    "jsonl": "pair",
    "tmx": "pair",
    "gettext": "",
    "flores": "",
    "mtdata": "pair",
    "text": "language",
}
COLUMNS = {"tsv": (1, 2), "jsonl": ()}  # jsonl: the languages themselves


@dataclass(frozen=True)
class DebianSettings:
    """Debian's translated package descriptions."""

    required: bool = True  # false: go on without them where apt-get cannot bring them

    def __post_init__(self) -> None:
        if not isinstance(self.required, bool):
            raise ConfigError(
                f"debian.required must be true or false, but is {self.required!r}. Write false to "
                "go on where there is no apt-get."
            )


@dataclass(frozen=True)
class CorpusSettings:
    """A file, folder or archive with text in one of FORMATS."""

    format: str
    path: str  # of mtdata: the corpus's id
    pair: str = ""
    language: str = ""
    columns: tuple[int | str, ...] = field(default_factory=tuple)
    name: str = ""  # in the report; format and file name if it is empty
    licence: str = "unknown"

    def __post_init__(self) -> None:
        if self.format not in tuple(FORMATS):  # what YAML gives need not be hashable
            raise ConfigError(
                f"corpora.format must be among {', '.join(FORMATS)}, but is {self.format!r}."
            )
        for name in ("path", "pair", "language", "name", "licence"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(
                    f"corpora.{name} must be text, but is {getattr(self, name)!r}. Put it into "
                    "quotes."
                )
        needed = FORMATS[self.format]
        for name in ("pair", "language"):
            if bool(getattr(self, name)) != (name == needed):
                must = "must be given" if name == needed else "must be left out"
                raise ConfigError(
                    f"corpora.{name} {must} for the format {self.format}, but is "
                    f"{getattr(self, name)!r} ({self.path})."
                )
        if self.pair:
            check_pair("corpora.pair", self.pair)
        self._check_columns()

    def _check_columns(self) -> None:
        if not self.columns:
            return
        kind = {"tsv": int, "jsonl": str}.get(self.format)
        fits = kind and len(self.columns) == 2 and all(type(c) is kind for c in self.columns)
        if not fits or (kind is int and min(map(int, self.columns)) < 1):
            raise ConfigError(
                "corpora.columns must be two numbers from 1 (tsv) or two keys (jsonl), but is "
                f"{list(self.columns)} for {self.format}."
            )

    @property
    def is_english_centred(self) -> bool:
        """Whether it pairs English with every language."""
        return not FORMATS[self.format]

    @property
    def title(self) -> str:
        """What the report calls the corpus."""
        return self.name or f"{self.format} {Path(self.path).name}"

    @property
    def label(self) -> str:
        """Its name in the manifest, which no other corpus has: titles are unique by pair only."""
        return f"{self.title} {self.pair or self.language}"


@dataclass(frozen=True)
class ExcludedText:
    """Text of one language, a sentence a line, that no split may share a string with."""

    language: str
    path: str

    def __post_init__(self) -> None:
        for name in ("language", "path"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(
                    f"exclude.{name} must be text, but is {getattr(self, name)!r}. Put it into "
                    "quotes."
                )


def check_pair(name: str, pair: object) -> None:
    """Refuse what are no two languages.

    Raises:
        ConfigError: begins with `name`.
    """
    sides = str(pair).split("-")
    if len(sides) != 2 or sides[0] == sides[1] or not all(map(CODE.fullmatch, sides)):
        raise ConfigError(f"{name} must be two languages such as en-de, but is {pair!r}.")
