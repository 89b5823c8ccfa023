"""Hugging Face's tokenizer files: which id is which symbol, and which are languages."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece

from mtmoe.checkpoint.stated_values import describe_misfit
from mtmoe.data.vocabulary import (
    BOS,
    PAD,
    SPECIAL_SYMBOLS,
    TAG,
    UNK,
    Vocabulary,
    language_tag,
)
from mtmoe.errors import CheckpointError, DataError
from mtmoe.files import check_input

logger = logging.getLogger(__name__)

SENTENCEPIECE = "sentencepiece.bpe.model"
MASK = "<mask>"
CODE = re.compile(r"[a-z]{2,3}_[A-Z][a-z]{3}|__\w+__")  # eng_Latn (NLLB), __en__ (M2M-100)
SPM_SPECIAL = 3  # <unk>, <s> and </s> stand first in a SentencePiece model


@dataclass(frozen=True)
class TheirVocabulary:
    """Their symbols in the order of their ids, and our vocabulary made of them."""

    vocabulary: Vocabulary
    order: tuple[int, ...]  # (V,) their id of each of our symbols


def read_tokenizer(folder: Path, vocab_size: int, last: Sequence[str] = ()) -> TheirVocabulary:
    """The vocabulary of a folder of NLLB or M2M-100; languages move to the end.

    Args:
        last: names of the last symbols, for which their tokenizer has none.

    Raises:
        CheckpointError: a file is missing or damaged, or does not fit `vocab_size`.
    """
    try:
        return _read_tokenizer(folder, vocab_size, last)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"the tokenizer's JSON files of {folder} must be those of NLLB or M2M-100, but one "
            f"{describe_misfit(error)}. Fetch them again."
        ) from None


def _read_tokenizer(folder: Path, vocab_size: int, last: Sequence[str]) -> TheirVocabulary:
    check_input("SentencePiece model", folder / SENTENCEPIECE, CheckpointError)
    model = (folder / SENTENCEPIECE).read_bytes()
    symbols = _base_symbols(folder, model)
    codes = _language_ids(folder, symbols)
    ids = set(codes.values())
    is_apart = len(ids) == len(codes) and min(ids, default=0) >= len(SPECIAL_SYMBOLS)
    if not codes or not is_apart or max(*ids, len(symbols) - 1) >= vocab_size:
        raise CheckpointError(
            f"the tokenizer of {folder} must have languages and fit vocab_size ({vocab_size}), but "
            f"has {len(symbols)} pieces and {len(codes)} languages of {len(ids)} ids. Fetch its "
            "files again."
        )
    by_id = symbols + [f"madeupword{n:04}" for n in range(vocab_size - len(symbols))]
    mask = _added_ids(folder, _optional(folder / "tokenizer_config.json")).get(MASK)
    if mask is not None and len(symbols) <= mask < vocab_size:
        by_id[mask] = MASK
    unnamed = range(vocab_size - len(last), vocab_size)
    if len({*by_id, *last}) < len(by_id) + len(last) or not ids.isdisjoint(unnamed):
        raise ValueError("a symbol has two places")
    by_id[unnamed.start :] = last
    for code, number in codes.items():
        by_id[number] = language_tag(code.strip("_"))
    others = [n for n in range(vocab_size) if n not in ids]
    order = (*others, *sorted(ids))
    return TheirVocabulary(Vocabulary(tuple(by_id[n] for n in order), model), order)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: the file is missing, or holds no object.
    """
    check_input(path.name, path, CheckpointError)
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} must hold a JSON object, but does not. Fetch it again.")
    return found


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _base_symbols(folder: Path, model: bytes) -> list[str]:
    """The symbols before the languages: of `vocab.json` (M2M-100), or in the model's order."""
    if (folder / "vocab.json").exists():
        numbered = read_json(folder / "vocab.json")
        symbols = sorted(numbered, key=lambda symbol: numbered[symbol])
        is_whole = [numbered[symbol] for symbol in symbols] == list(range(len(symbols)))
    else:
        symbols, is_whole = [*SPECIAL_SYMBOLS, *pieces_of(model)], True
    if not is_whole or tuple(symbols[: len(SPECIAL_SYMBOLS)]) != SPECIAL_SYMBOLS:
        raise CheckpointError(
            f"vocab.json of {folder} must number its symbols from 0 and begin with "
            f"{' '.join(SPECIAL_SYMBOLS)}, but does not. Fetch it again."
        )
    return symbols


def pieces_of(model: bytes) -> list[str]:
    """The pieces of a SentencePiece model but for the special ones.

    Raises:
        CheckpointError: the model is damaged.
    """
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError:
        raise CheckpointError(
            f"{SENTENCEPIECE} must be a SentencePiece model, but is damaged. Fetch it again."
        ) from None
    return [processor.id_to_piece(n) for n in range(SPM_SPECIAL, len(processor))]


def _language_ids(folder: Path, symbols: Sequence[str]) -> dict[str, int]:
    """The id of each language code."""
    config = _optional(folder / "tokenizer_config.json")
    special = _optional(folder / "special_tokens_map.json")
    listed = special.get("additional_special_tokens") or config.get("additional_special_tokens")
    contents = [_content(token) for token in listed or []]
    ids = _added_ids(folder, config)
    codes = [token for token in contents or ids if CODE.fullmatch(token)]
    return {code: ids.get(code, len(symbols) + n) for n, code in enumerate(codes)}


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, Mapping) else token)


def _added_ids(folder: Path, config: Mapping[str, Any]) -> dict[str, int]:
    """The ids of added tokens, from whichever file of a folder names them."""
    if "added_tokens_decoder" in config:
        return {_content(t): int(n) for n, t in config["added_tokens_decoder"].items()}
    if (folder / "added_tokens.json").exists():
        return {str(t): int(n) for t, n in read_json(folder / "added_tokens.json").items()}
    fast = _optional(folder / "tokenizer.json")
    return {_content(token): int(token["id"]) for token in fast.get("added_tokens", [])}


@dataclass(frozen=True)
class TokenizerLayout:
    """Our vocabulary in the order of NLLB's tokenizer: pieces, languages, <mask>, what is left."""

    order: tuple[int, ...]  # our id of each of their symbols; UNK where we have none
    languages: dict[str, int]  # their token of each language -> its id there
    suppressed: tuple[int, ...]  # their ids that are never translations, </s> not among them
    mask: int  # their id of <mask>; behind the last row of the embedding if we have no such symbol
    unnamed: tuple[str, ...]  # our last symbols, for which that tokenizer has no name


def plan_layout(vocabulary: Vocabulary) -> TokenizerLayout:
    """Where our symbols go.

    Pieces that SentencePiece has and the vocabulary lacks get the row of <unk>, as which they are
    read here; a warning tells, since each has a share of the softmax there.
    """
    index, tags = vocabulary.index, [language_tag(code) for code in vocabulary.languages]
    head = [*SPECIAL_SYMBOLS, *pieces_of(vocabulary.model), *tags]
    head += [MASK] if MASK in index else []
    known = set(head)
    symbols = [*head, *(symbol for symbol in vocabulary.symbols if symbol not in known)]
    first = head.index(tags[0])
    languages = {their_code(c): first + n for n, c in enumerate(vocabulary.languages)}
    absent = [n for n, symbol in enumerate(symbols) if symbol not in index]
    if absent:
        logger.warning("%d pieces are not in the vocabulary: they are <unk> there", len(absent))
    return TokenizerLayout(
        order=tuple(index.get(symbol, UNK) for symbol in symbols),
        languages=languages,
        suppressed=tuple(sorted({BOS, PAD, UNK, *absent, *languages.values()})),
        mask=head.index(MASK) if MASK in index else len(symbols),
        unnamed=tuple(symbols[len(head) :]),
    )


def their_code(language: str) -> str:
    """The token of a language: `eng_Latn` as it is, other names as a tag, `__en__`."""
    return language if CODE.fullmatch(language) else language_tag(language)


def tokenizer_files(vocabulary: Vocabulary, layout: TokenizerLayout) -> dict[str, bytes]:
    """The files that `NllbTokenizer` loads, by name.

    Raises:
        DataError: a language's name cannot be a token.
    """
    for code in layout.languages:
        if not CODE.fullmatch(code) and not TAG.fullmatch(code):
            raise DataError(f"language must be a word, but is {code!r}. Rename it.")
    special = {
        "bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>",
        "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": MASK,
        "additional_special_tokens": list(layout.languages),
    }  # fmt: skip
    added = {symbol: n for n, symbol in enumerate(SPECIAL_SYMBOLS)}
    added |= {**layout.languages, MASK: layout.mask}
    config = {
        **special,
        "tokenizer_class": "NllbTokenizer",
        "src_lang": next(iter(layout.languages)),
        "tgt_lang": None,
        "legacy_behaviour": False,
        "clean_up_tokenization_spaces": False,
        "sp_model_kwargs": {},
        "added_tokens_decoder": {str(n): _added_token(t) for t, n in added.items()},
    }
    return {
        SENTENCEPIECE: vocabulary.model,
        "tokenizer_config.json": json_bytes(config),
        "special_tokens_map.json": json_bytes(special),
    }


def _added_token(content: str) -> dict[str, Any]:
    return {
        "content": content, "lstrip": content == MASK, "normalized": content == MASK,
        "rstrip": False, "single_word": False, "special": True,
    }  # fmt: skip


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """A JSON file."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
