"""FLORES-200 as its authors pack it: `dev/deu_Latn.dev`, `devtest/deu_Latn.devtest`, line by line.

Made for testing: whoever trains on it cannot be compared with others. docs/data.md says how to keep
it out of train in place of reading it.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_prep.config import pair_name
from data_prep.corpus_settings import CorpusSettings
from data_prep.languages import iso_639_3
from data_prep.records import Record
from data_prep.sources.corpus import Corpus
from data_prep.sources.files import align
from data_prep.sources.streams import open_lines
from mtmoe.errors import DataError

PARTS = ("dev", "devtest")
# Where FLORES has a member of the group that a code stands for; the rest follows ISO 639-3.
CODES = {
    "ar": "arb", "ay": "ayr", "az": "azj", "bs": "bos", "et": "est", "fa": "pes", "fil": "tgl",
    "hr": "hrv", "id": "ind", "ku": "kmr", "lv": "lvs", "mg": "plt", "mn": "khk", "ms": "zsm",
    "ne": "npi", "no": "nob", "om": "gaz", "or": "ory", "ps": "pbt", "pt_br": "por", "qu": "quy",
    "sq": "als", "sr": "srp", "sw": "swh", "uz": "uzn", "yi": "ydd", "zh": "zho",
}  # fmt: skip


def flores_corpora(settings: CorpusSettings, languages: Iterable[str]) -> list[Corpus]:
    """English with each of `languages` that the folder has.

    Raises:
        DataError: the folder has no English.
    """
    folder = Path(settings.path)
    stems = {path.stem for part in PARTS for path in (folder / part).glob(f"*.{part}")}
    english = find_stem("en", stems)
    if english is None:
        raise DataError(
            "corpora.path must be a folder with dev/eng_Latn.dev or devtest/eng_Latn.devtest, but "
            f"{folder} is none. Unpack FLORES-200, and name its folder."
        )
    corpora = []
    for language in languages:
        other = find_stem(language, stems)
        if language != "en" and other:
            files = [(folder / p / f"{english}.{p}", folder / p / f"{other}.{p}") for p in PARTS]
            files = [pair for pair in files if all(path.is_file() for path in pair)]
            inputs = {f"{settings.title} {path.name}": path for pair in files for path in pair}
            read = functools.partial(read_flores, settings.title, files)
            pair = pair_name("en", language)
            corpora.append(Corpus(settings.title, pair, settings.licence, inputs, read))
    return corpora


def find_stem(language: str, stems: Iterable[str]) -> str | None:
    """What FLORES calls a language, `deu_Latn`; None if it is not among `stems`.

    `zh_hant` has its own script; a region's variant is found only if it is the one that FLORES has.
    """
    base, *variant = language.split("_")
    code = CODES.get(language) or CODES.get(base) or iso_639_3(base)
    found = sorted(stem for stem in stems if stem.split("_")[0] == code)
    if variant and language not in CODES:
        wanted = f"{code}_{variant[0].title()}"
        return wanted if wanted in found else None
    return found[0] if found else None


def read_flores(
    title: str, files: list[tuple[Path, Path]], counts: Counter[str]
) -> Iterator[Record]:
    """The sentences of all parts, English first.

    Args:
        counts: see `align`.

    Raises:
        DataError: see `align`.
    """
    for english, other in files:
        with open_lines(english) as first, open_lines(other) as second:
            yield from align(first, second, title, counts)
