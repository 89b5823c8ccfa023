"""Language codes: as catalogues spell them, as we write them, as heliport and Unicode name them."""

from __future__ import annotations

import re

# A territory or script that adds nothing to the plain code (CLDR "likely subtags"). All other
# regional variants (de_at, es_mx, fr_ca, pt_br) stay languages of their own.
ALIASES = {
    "az_az": "az",
    "bg_bg": "bg",
    "bn_bd": "bn",
    "ca_es": "ca",
    "cs_cz": "cs",
    "de_de": "de",
    "el_gr": "el",
    "es_es": "es",
    "fa_ir": "fa",
    "fi_fi": "fi",
    "fr_fr": "fr",
    "gu_in": "gu",
    "he_il": "he",
    "hi_in": "hi",
    "hr_hr": "hr",
    "hu_hu": "hu",
    "hy_am": "hy",
    "id_id": "id",
    "is_is": "is",
    "ka_ge": "ka",
    "ko_kr": "ko",
    "lt_lt": "lt",
    "mk_mk": "mk",
    "nb_no": "nb",
    "ro_ro": "ro",
    "ru_ru": "ru",
    "sk_sk": "sk",
    "sl_si": "sl",
    "sq_al": "sq",
    "sv_se": "sv",
    "th_th": "th",
    "tr_tr": "tr",
    "uk_ua": "uk",
    "vi_vn": "vi",
    "zh_cn": "zh_hans",
    "zh_tw": "zh_hant",
}

_SCRIPTS = {
    "Arabic": "ar arz ars apc ckb fa ps skr ug ur",
    "Armenian": "hy",
    "Bengali": "as bn",
    "Cyrillic": "ab ba be bg cv kk ky mk mn os ru rue tg tt udm uk",
    "Devanagari": "awa hi mr ne sa",
    "Ethiopic": "am ti",
    "Georgian": "ka",
    "Greek": "el",
    "Gujarati": "gu",
    "Gurmukhi": "pa",
    "Han": "lzh yue zh",
    "Hangul": "ko",
    "Hebrew": "he yi",
    "Kannada": "kn",
    "Khmer": "km",
    "Lao": "lo",
    "Malayalam": "ml",
    "Myanmar": "my",
    "Oriya": "or",
    "Sinhala": "si",
    "Tamil": "ta",
    "Telugu": "te",
    "Thaana": "dv",
    "Thai": "th",
    "Tibetan": "bo",
}
SCRIPTS = {code: script for script, codes in _SCRIPTS.items() for code in codes.split()}
WITHOUT_SPACES = frozenset({"bo", "ja", "km", "lo", "lzh", "my", "th", "yue", "zh"})
SEVERAL_SCRIPTS = frozenset({"az", "ber", "ja", "ku", "sr", "tzm", "uz", "zgh"})

# heliport names languages by ISO 639-3, and some by the group that they belong to.
HELIPORT = {
    "bs": "hbs",
    "et": "est",
    "fa": "pes",
    "fil": "tgl",
    "hr": "hbs",
    "id": "msa",
    "ku": "kmr",
    "lv": "lav",
    "no": "nob",
    "ps": "pbt",
    "sq": "sqi",
    "sr": "hbs",
    "uz": "uzn",
    "zh": "cmn",
}

CODE = re.compile(r"[a-z]{2,3}(_[a-z0-9]{2,8})*")


def canonical(code: str) -> str:
    """The form in which we write a language code: `pt-BR` gives `pt_br`, `fr_FR` gives `fr`."""
    plain = re.sub(r"[-@.]", "_", code).lower()
    return ALIASES.get(plain, plain)


def script_of(language: str) -> str | None:
    """The Unicode script of a language, or None where it has several (then nothing is checked)."""
    parts = language.split("_")
    if "latn" in parts or "latin" in parts:
        return "Latin"
    if "cyrl" in parts:
        return "Cyrillic"
    return None if parts[0] in SEVERAL_SCRIPTS else SCRIPTS.get(parts[0], "Latin")


def has_spaces(language: str) -> bool:
    """Whether the language puts spaces between words."""
    return language.split("_")[0] not in WITHOUT_SPACES


def iso_639_3(language: str) -> str | None:
    """The three-letter code by which heliport may know a language; None for an unknown one."""
    base = language.split("_")[0]
    return HELIPORT.get(base) or three_letters(base)


def three_letters(language: str) -> str | None:
    """The code of ISO 639-3; None for an unknown language."""
    base = language.split("_")[0]
    if len(base) == 3:
        return base
    from iso639 import Lang
    from iso639.exceptions import InvalidLanguageValue

    try:
        return str(Lang(base).pt3)
    except InvalidLanguageValue:
        return None
