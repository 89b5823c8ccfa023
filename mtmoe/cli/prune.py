"""`mtmoe prune`: a checkpoint with the experts that a text uses most."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtmoe.errors import ConfigError, DataError
from mtmoe.files import check_output, read_lines

if TYPE_CHECKING:
    from torch import Tensor

    from mtmoe.checkpoint.fairseq_file import Checkpoint
    from mtmoe.modules.usage import ExpertUse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("--keep", type=int, required=True, metavar="N", help="experts left a layer")
    parser.add_argument("--output", required=True, metavar="OUT", help="the smaller checkpoint")
    parser.add_argument(
        "--text", nargs="+", required=True, metavar="FILE",
        help="sentences whose translation shows the use; the name ends in the language: valid.en",
    )  # fmt: skip
    parser.add_argument(
        "--source-lang", metavar="LANG", help="language of --text, whatever its name"
    )
    parser.add_argument(
        "--languages",
        metavar="LANG,LANG",
        help="keep what these need; default: all of the checkpoint",
    )
    parser.add_argument(
        "--limit", type=int, default=500, metavar="N", help="the first N lines of each file"
    )


def run(args: argparse.Namespace) -> None:
    """Translate the text, count the use of each expert, keep the most used, write.

    Raises:
        ConfigError, DataError, CheckpointError: a wrong option, text or checkpoint.
    """
    if args.limit < 1:
        raise ConfigError(f"--limit must be at least 1, but is {args.limit}. Give 1 or more.")
    check_output("--output", args.output)
    texts = {path: read_lines(path)[: args.limit] for path in args.text}
    from mtmoe.checkpoint.fairseq_file import load_checkpoint, write_checkpoint
    from mtmoe.surgery.prune import check_keep, count_parameters, prune_checkpoint, select_experts

    checkpoint = load_checkpoint(args.checkpoint)
    check_keep(checkpoint, args.keep)
    languages = choose_languages(args.languages, checkpoint.vocabulary.languages)
    by_language = group_by_language(texts, args.source_lang, checkpoint.vocabulary.languages)
    uses = measure_own_translations(checkpoint, by_language, languages)
    kept = select_experts(mean_importance(list(uses.values())), args.keep)
    state = prune_checkpoint(checkpoint, kept)
    write_checkpoint(args.output, state)
    before, after = count_parameters(checkpoint.weights), count_parameters(state["model"])
    for name, experts in zip(checkpoint.config.moe_layer_names, kept, strict=True):
        sys.stderr.write(f"{name}: kept experts {' '.join(map(str, experts.tolist()))}\n")
    sys.stderr.write(f"{before / 1e6:.1f}M parameters before, {after / 1e6:.1f}M after\n")
    sys.stdout.write(f"{args.output}\n")


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


def measure_own_translations(
    checkpoint: Checkpoint, text: dict[str, list[str]], languages: Sequence[str]
) -> dict[str, ExpertUse]:
    """Use of the experts in each trained direction, reading the model's own greedy translation.

    Raises:
        DataError: no direction leads from the text's languages to another one of `languages`.
    """
    from mtmoe.inference.engine import Translator
    from mtmoe.report.parallel_text import ParallelText
    from mtmoe.report.usage import measure_text

    translator = Translator(checkpoint)
    uses: dict[str, ExpertUse] = {}
    for direction in checkpoint.directions:
        source, target = direction.split("-")
        if source in text and {source, target} <= set(languages):
            translated = translator.translate(text[source], source, target, beam=1)
            pair = ParallelText(source, target, tuple(text[source]), tuple(translated))
            uses[direction] = measure_text(checkpoint, translator.model, pair)
    if not uses:
        raise DataError(
            f"--text must be in a language that the checkpoint translates into another one of "
            f"{', '.join(languages)}, but is in {', '.join(text)}."
        )
    return uses


def mean_importance(uses: Sequence[ExpertUse]) -> Tensor:
    """(N, E): each direction weighs alike, however much text it has."""
    import torch

    return torch.stack([use.importance() for use in uses]).mean(0)
