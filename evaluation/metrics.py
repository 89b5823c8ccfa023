"""BLEU and chrF++ of a whole test set, each with the signature that makes it comparable."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics import BLEU, CHRF

from mtmoe.errors import ConfigError, DataError

UNSPACED = frozenset(("lo", "km", "my", "th"))  # written without spaces between words


@dataclass(frozen=True)
class Score:
    """What a system reaches on a test set."""

    bleu: float  # 0 to 100
    chrf: float  # chrF++, 0 to 100
    signature: str  # of both, as sacreBLEU writes them


def choose_tokenizer(target_lang: str) -> str:
    """sacreBLEU's tokenizer that suits a language; 13a for all that separate words by spaces.

    Japanese and Korean have theirs where sacreBLEU's extra of that name is installed. Without it,
    Japanese is counted by character.
    """
    language = target_lang.split("_")[0]
    if language in ("ja", "ko") and importlib.util.find_spec("MeCab"):
        return f"{language}-mecab"
    if language == "ja" or language in UNSPACED:
        return "char"
    return "zh" if language == "zh" else "13a"


def check_language(option: str, language: str) -> None:
    """Refuse what names no language, since the tokenizer would silently be that of English.

    Raises:
        ConfigError: `language` is no code of ISO 639 (with or without `_region`), nor empty.
    """
    from iso639 import Lang
    from iso639.exceptions import DeprecatedLanguageValue, InvalidLanguageValue

    is_known = language == language.lower()  # `Lang` takes names too: German
    try:
        Lang(language.split("_")[0] or "en")
    except (InvalidLanguageValue, DeprecatedLanguageValue):
        is_known = False
    if not is_known:
        raise ConfigError(
            f"{option} must be a code of ISO 639 such as de, ja or pt_br, but is {language!r}. "
            "Give the code of the language of the references."
        )


def make_metrics(target_lang: str) -> dict[str, BLEU | CHRF]:
    """The two metrics by name, BLEU first."""
    return {"bleu": BLEU(tokenize=choose_tokenizer(target_lang)), "chrf": CHRF(word_order=2)}


def score_lines(hypotheses: Sequence[str], references: Sequence[str], target_lang: str) -> Score:
    """Score translations against one reference each.

    Raises:
        DataError: the numbers of lines differ, or there is none.
    """
    check_lines({"hypotheses": hypotheses, "references": references})
    metrics = make_metrics(target_lang)
    values = {
        name: metric.corpus_score(list(hypotheses), [list(references)])
        for name, metric in metrics.items()
    }
    signature = " ; ".join(
        f"{values[name].name}|{metric.get_signature()}" for name, metric in metrics.items()
    )
    return Score(round(values["bleu"].score, 2), round(values["chrf"].score, 2), signature)


def check_lines(sides: dict[str, Sequence[str]]) -> None:
    """Refuse sides that are empty or of unequal lengths; their names stand in the error.

    Raises:
        DataError: says how many lines each has.
    """
    counts = {name: len(lines) for name, lines in sides.items()}
    if len(set(counts.values())) > 1:
        numbers = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"all sides must have equally many lines, but have: {numbers}.")
    if not next(iter(counts.values())):
        raise DataError(f"{' and '.join(sides)} must have at least one line, but are empty.")
