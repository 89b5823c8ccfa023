"""Text that shows the use of experts: options, files, languages and directions."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from glob import escape, glob
from pathlib import Path
from typing import TYPE_CHECKING

from mtmoe.errors import ConfigError, DataError
from mtmoe.files import read_lines

if TYPE_CHECKING:
    from mtmoe.checkpoint.fairseq_file import Checkpoint
    from mtmoe.inference.engine import Translator
    from mtmoe.report.expert_statistics import ExpertStatistics
    from mtmoe.report.parallel_text import ParallelText

OF_SEARCH = ("source_lang", "beam")
OF_TEXT = {"source_lang": None, "limit": 500, "decoding": "search", "beam": 1}  # and their defaults


def add_text_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say what is measured."""
    parser.add_argument(
        "--text", nargs="+", metavar="FILE",
        help="sentences whose translation shows the use; the name ends in the language: valid.en",
    )  # fmt: skip
    parser.add_argument(
        "--source-lang", metavar="LANG", help="language of --text, whatever its name"
    )
    parser.add_argument(
        "--languages", "--langs", metavar="LANG,LANG",
        help="only directions between these; default: all of the checkpoint",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, default=OF_TEXT["limit"], metavar="N",
        help="the first N lines of each file",
    )  # fmt: skip
    parser.add_argument(
        "--decoding", choices=("search", "reference"), default=OF_TEXT["decoding"],
        help="what the decoder reads: its own translation (search, the default), or that of "
        "parallel files valid.en-de.en and valid.en-de.de (reference: teacher forcing)",
    )  # fmt: skip
    parser.add_argument(
        "--beam", type=int, default=OF_TEXT["beam"], metavar="N",
        help="of --decoding search (default 1: greedy)",
    )  # fmt: skip


def check_text_arguments(args: argparse.Namespace) -> None:
    """Refuse wrong values, and options without effect, before the model is loaded.

    Raises:
        ConfigError: says what must be given.
    """
    for option in ("limit", "beam"):
        value = getattr(args, option)
        if value < 1:
            raise ConfigError(f"--{option} must be at least 1, but is {value}. Give 1 or more.")
    for name, usual in OF_TEXT.items():
        needed = None if args.text else "--text"
        if args.decoding == "reference" and name in OF_SEARCH:
            needed = "--decoding search"
        if needed and getattr(args, name) != usual:
            raise ConfigError(
                f"--{name.replace('_', '-')} must be given with {needed}, but is given without it. "
                "Leave it out."
            )


def text_files(args: argparse.Namespace) -> list[str]:
    """The files that are read: those of `--text`, and with references what stands beside them."""
    names = list(args.text or ())
    beside = names if args.decoding == "reference" else ()
    return names + [f for n in beside for f in glob(f"{escape(n.rpartition('.')[0])}.*")]


def measure(checkpoint: Checkpoint, args: argparse.Namespace) -> ExpertStatistics:
    """The use of the experts over `args.text`, by direction.

    Raises:
        ConfigError: a wrong option.
        DataError: the text cannot be read, or is in none of the directions.
        CheckpointError: the model computes no finite numbers.
    """
    from mtmoe.inference.engine import Translator
    from mtmoe.report.expert_statistics import ExpertStatistics, fingerprint
    from mtmoe.report.usage import measure_text
    from mtmoe.surgery.state import check_finite

    known = checkpoint.vocabulary.languages
    wanted = choose_directions(checkpoint, choose_languages(args.languages, known))
    if args.decoding == "reference":
        model = checkpoint.build_model()
        texts: Iterable[ParallelText] = read_references(args, wanted)
    else:
        lines = {path: read_lines(path)[: args.limit] for path in args.text}
        by_language = group_by_language(lines, args.source_lang, known)
        translator = Translator(checkpoint)
        model, texts = translator.model, translate(translator, by_language, wanted, args.beam)
    found = {text.direction: measure_text(checkpoint, model, text) for text in texts}
    if not found:
        raise DataError(
            f"--text must be in a language that the checkpoint translates in one of the directions "
            f"{', '.join(wanted)}, but is {', '.join(args.text)}. Give other text."
        )
    for use in found.values():
        for layer, numbers in zip(use.layers, use.probability, strict=True):
            check_finite(numbers, f"{layer}.feed_forward.ffn.router.weight, or one before it,")
    uses = {direction: use for direction, use in found.items() if use.is_measured()}
    if not uses:
        raise DataError(
            f"--text must hold sentences of at most {checkpoint.config.max_positions} tokens, but "
            f"all are longer in {', '.join(found)}. Split them."
        )
    return ExpertStatistics(fingerprint(checkpoint), uses)


def choose_languages(names: str | None, known: Sequence[str]) -> list[str]:
    """The languages that the option names; all known ones without it.

    Raises:
        ConfigError: an unknown language, or only one.
    """
    if names is None:
        return list(known)
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in known:
            raise ConfigError(
                f"--languages must be among {', '.join(known)}, but has {name!r}. Leave it out."
            )
    if len(set(chosen)) < 2:
        raise ConfigError(
            f"--languages must name two or more languages, but is {names!r}. Add one."
        )
    return chosen


def choose_directions(checkpoint: Checkpoint, languages: Sequence[str]) -> list[str]:
    """The directions between `languages` that the checkpoint was trained on.

    Raises:
        ConfigError: there is none.
    """
    found = [d for d in checkpoint.directions if set(d.split("-")) <= set(languages)]
    if not found:
        raise ConfigError(
            "--languages must leave a direction that the checkpoint was trained on "
            f"({', '.join(checkpoint.directions)}), but leave none. Name others."
        )
    return found


def read_references(args: argparse.Namespace, directions: Sequence[str]) -> list[ParallelText]:
    """The parallel text of `args.text` in `directions`.

    Raises:
        DataError: a file is not as it must be.
    """
    from mtmoe.report.parallel_text import read_named_pairs

    texts = read_named_pairs(args.text, args.limit)
    return [text for text in texts if text.direction in directions]


def group_by_language(
    texts: dict[str, list[str]], source_lang: str | None, known: Sequence[str]
) -> dict[str, list[str]]:
    """The distinct lines of each language; its name is the file's suffix if none is given.

    Raises:
        DataError: a file is empty, or its language is unknown.
    """
    grouped: dict[str, list[str]] = {}
    for path, lines in texts.items():
        language = source_lang or Path(path).suffix.removeprefix(".")
        if language not in known:
            raise DataError(
                f"the language of {path} must be one of {', '.join(known)}, but is {language!r}. "
                "Name it with --source-lang."
            )
        sentences = [line for line in lines if line.strip()]
        if not sentences:
            raise DataError(f"--text must hold sentences, but {path} is empty. Give another file.")
        grouped.setdefault(language, []).extend(sentences)
    return {language: list(dict.fromkeys(lines)) for language, lines in grouped.items()}


def translate(
    translator: Translator, text: dict[str, list[str]], directions: Sequence[str], beam: int
) -> Iterable[ParallelText]:
    """The model's own translations, in each of `directions` whose source language has text."""
    from mtmoe.report.parallel_text import ParallelText

    for direction in directions:
        source, target = direction.split("-")
        if source in text:
            translated = translator.translate(text[source], source, target, beam=beam)
            yield ParallelText(source, target, tuple(text[source]), tuple(translated))
