"""`mtmoe score`: how likely a model finds given translations."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtmoe.cli.translate import (
    add_model_arguments,
    check_weight_options,
    make_search_config,
    output_name,
    write_output,
)
from mtmoe.cli.translation_ranks import is_first_rank, load_model, open_ranks, serve_ranks
from mtmoe.errors import DataError
from mtmoe.files import check_output, read_lines
from mtmoe.inference.search_config import SearchConfig

if TYPE_CHECKING:
    from mtmoe.inference.engine import Translator
    from mtmoe.inference.requests import Translation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_model_arguments(parser)
    parser.add_argument("--source", required=True, metavar="FILE", help="sentences, one a line")
    parser.add_argument("--target", required=True, metavar="FILE", help="their translations")
    parser.add_argument(
        "--length-penalty", type=float, default=1.0, metavar="N",
        help="score = sum of log probabilities / tokens ** penalty (default 1.0)",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true",
        help="write lines of JSON with source, target, score, and the words with their scores",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=output_name, metavar="FILE",
        help="scores; - or left out: standard output",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Write a score a line: the mean log probability of a piece if the penalty is 1.

    Raises:
        ConfigError, DataError, CheckpointError: a user's mistake.
    """
    config = make_search_config(args, ["length_penalty"])
    check_weight_options(args)
    if not is_first_rank():
        serve_ranks(args)
        return
    check_output("--output", args.output, [args.model, args.source, args.target])
    source, target = read_lines(args.source), read_lines(args.target)
    if len(source) != len(target):
        raise DataError(
            f"--target must have as many lines as --source ({len(source)}), but has {len(target)}. "
            "Give two files that go together."
        )
    with open_ranks(args) as ranks:
        found = _score(args, load_model(args, ranks), source, target, config)
    write = _to_json if args.json else _to_number
    with write_output(args.output) as file:
        file.write("".join(map(write, source, found)).encode())
    sys.stdout.flush()


def _score(
    args: argparse.Namespace,
    translator: Translator,
    source: Sequence[str],
    target: Sequence[str],
    config: SearchConfig,
) -> list[Translation]:
    from mtmoe.inference.record_translator import Defaults, RecordTranslator
    from mtmoe.inference.requests import Request

    defaults = Defaults(args.source_lang, args.target_lang)
    languages = RecordTranslator(translator, config, defaults).direction(None, None)
    names = (f"{args.source} line {number}" for number in range(1, len(source) + 1))
    requests = [
        Request(line, *languages, name=name) for line, name in zip(source, names, strict=True)
    ]
    return translator.score(requests, target, config)


def _to_number(source: str, found: Translation) -> str:
    return f"{found.score:.6f}\n"


def _to_json(source: str, found: Translation) -> str:
    fields = {"source": source, "target": found.text, "score": found.score, "words": found.words}
    return json.dumps(fields, ensure_ascii=False) + "\n"
