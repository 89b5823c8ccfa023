"""`mtmoe translate`: line in, line out."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import IO, TYPE_CHECKING

from tqdm import tqdm

from mtmoe.errors import ConfigError, DataError
from mtmoe.files import check_input, check_output, open_atomic
from mtmoe.inference.records import Record, json_record, plain_record, to_json
from mtmoe.inference.search_config import SearchConfig
from mtmoe.inference.text import read_chunks

if TYPE_CHECKING:
    from mtmoe.inference.engine import Translator
    from mtmoe.inference.requests import Translation

logger = logging.getLogger(__name__)

CHUNK_LINES = 2000  # read, sorted by length and written together


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtmoe translate`."""
    add_model_arguments(parser)
    for item in fields(SearchConfig):
        option = "--n-best" if item.name == "num_best" else "--" + item.name.replace("_", "-")
        help_text = item.metadata["help"]
        if isinstance(item.default, bool):
            parser.add_argument(option, action="store_true", help=help_text)
            continue
        help_text += " (default %(default)s)"
        kind = type(item.default)
        parser.add_argument(
            option, dest=item.name, type=kind, default=item.default, metavar="N", help=help_text
        )
    parser.add_argument(
        "--long", choices=("split", "truncate", "error"), default="split",
        help="what is done, with a warning, with a line too long for the model (default split)",
    )  # fmt: skip
    parser.add_argument("--prefix", default="", help="what each translation begins with")
    parser.add_argument(
        "--scores", action="store_true", help="write the score and a tab before each translation"
    )
    parser.add_argument(
        "--json-input", action="store_true",
        help='read lines of JSON, {"text": ..., "source_lang": ..., "target_lang": ..., '
        '"prefix": ...}, all but text optional; other keys are written again; implies --json',
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true",
        help="write lines of JSON with text, translation, score, words, and with --n-best all",
    )  # fmt: skip
    parser.add_argument("--input", metavar="FILE", help="text to read; default: standard input")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="text to write, which appears when it is complete; default: standard output",
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of all commands that load a model to translate."""
    parser.add_argument("--model", required=True, metavar="CKPT", help="checkpoint_*.pt to use")
    parser.add_argument("--target-lang", required=True, metavar="XX", help="language to write")
    parser.add_argument(
        "--source-lang",
        metavar="XX",
        help="language to read; default: the only one trained for this target, or en",
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda", "auto"),
        default="auto",
        help="auto (the default): cuda where there is one",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "int8"),
        default="float32",
        help="numbers of the weights and of products with them (default float32); int8: CPU only",
    )
    parser.add_argument(
        "--expert-memory",
        type=float,
        metavar="GIB",
        help="read experts from the file when they are needed, and keep so much of them (CPU)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU cores to use; default: all")


def run(args: argparse.Namespace) -> None:
    """Translate; wrong options and files are refused before the model is loaded.

    Raises:
        ConfigError, DataError, CheckpointError: a user's mistake.
    """
    config = SearchConfig(**{item.name: getattr(args, item.name) for item in fields(SearchConfig)})
    check_threads(args.threads)
    check_output("--output", args.output)
    with contextlib.ExitStack() as stack:
        stream, name = stack.enter_context(_open_input(args.input))
        translator, source_lang = load(args)
        output = stack.enter_context(write_output(args.output))
        bar = stack.enter_context(_progress_bar(args.output))
        number = 0
        for lines in read_chunks(stream, name, CHUNK_LINES):
            read, mistake = _read_records(lines, name, number, args)
            languages = source_lang, args.target_lang
            mistake = _check_languages(translator, read, *languages) or mistake
            answers = translate_records(translator, read, (source_lang, args), config)
            output.write("".join(answers).encode())
            output.flush()
            if mistake is not None:  # told after the lines ahead of it were translated
                raise mistake
            bar.update(len(lines))
            number += len(lines)


def _read_records(
    lines: Sequence[str], name: str, number: int, args: argparse.Namespace
) -> tuple[list[Record], DataError | None]:
    """The lines up to the first one that is wrong, and what is wrong with it."""
    make, found = json_record if args.json_input else plain_record, []
    for line in lines:
        number += 1
        try:
            found.append(make(line, f"{name} line {number}"))
        except DataError as error:
            return found, error
    return found, None


def _check_languages(
    translator: Translator, records: list[Record], source_lang: str, target_lang: str
) -> DataError | None:
    """Cut `records` before the first one whose languages the model does not know; why."""
    for n, record in enumerate(records):
        try:
            translator.check_direction(
                record.source_lang or source_lang, record.target_lang or target_lang
            )
        except ConfigError as error:
            del records[n:]
            return DataError(f"{record.name}: {error}")
    return None


def translate_records(
    translator: Translator,
    records: Sequence[Record],
    defaults: tuple[str, argparse.Namespace],
    config: SearchConfig,
) -> list[str]:
    """What is written for each record, line ends included."""
    from mtmoe.inference.requests import Request, join_chunks

    source_lang, args = defaults
    chunks = [record.chunks for record in records]
    requests = [
        Request(
            text, record.source_lang or source_lang, record.target_lang or args.target_lang,
            "" if n else record.prefix or args.prefix, record.name,
        )
        for record, parts in zip(records, chunks, strict=True)
        for n, text in enumerate(parts[1::2])
    ]  # fmt: skip
    found = iter(translator.translate_requests(requests, config, args.long))
    answers = []
    for record, parts in zip(records, chunks, strict=True):
        ranked = join_chunks(parts, [next(found) for _ in parts[1::2]], config.length_penalty)
        answers.append(format_answer(record, ranked, args))
    return answers


def format_answer(record: Record, ranked: Sequence[Translation], args: argparse.Namespace) -> str:
    """The lines of one record: one, or with --n-best as many as were found."""
    if args.json or args.json_input:
        best = [{"translation": t.text, "score": t.score, "words": t.words} for t in ranked]
        added = {"n_best": best} if args.num_best > 1 else {}
        return to_json({"text": record.text, **record.fields}, {**best[0], **added}) + "\n"
    number = f"{record.name.rsplit(' ', 1)[1]}\t" if args.num_best > 1 else ""
    has_score = args.scores or args.num_best > 1
    score = (f"{t.score:.6f}\t" if has_score else "" for t in ranked)
    return "".join(f"{number}{s}{t.text}\n" for s, t in zip(score, ranked, strict=True))


def load(args: argparse.Namespace) -> tuple[Translator, str]:
    """The model that the command line names, and the language to read.

    Raises:
        ConfigError, CheckpointError: a wrong option, or no checkpoint.
    """
    from mtmoe.inference.engine import Translator

    check_threads(args.threads)
    check_expert_memory(args.expert_memory)
    translator = Translator.from_checkpoint(
        args.model, args.device, args.dtype, args.threads, args.expert_memory
    )
    return translator, _choose_source(translator, args.source_lang, args.target_lang)


def _choose_source(translator: Translator, source_lang: str | None, target_lang: str) -> str:
    if source_lang is None:
        source_lang = translator.default_source(target_lang)
    translator.check_direction(source_lang, target_lang)
    direction = f"{source_lang}-{target_lang}"
    if direction not in translator.directions:
        known = ", ".join(translator.directions)
        logger.warning("the model was not trained on %s, but on %s: zero-shot.", direction, known)
    return source_lang


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads below 1.

    Raises:
        ConfigError: it is.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"--threads must be at least 1, but is {threads}. Give 1 or more.")


def check_expert_memory(gib: float | None) -> None:
    """Refuse a budget that is no number or negative.

    Raises:
        ConfigError: it is.
    """
    if gib is not None and not (math.isfinite(gib) and gib >= 0):
        raise ConfigError(f"--expert-memory must be 0 or above, but is {gib}. Give GiB.")


@contextlib.contextmanager
def _open_input(path: str | None) -> Iterator[tuple[IO[bytes], str]]:
    """The bytes to read, and their name in errors."""
    if path is None:
        if sys.stdin is None:
            raise DataError("standard input must be open, but is closed. Give --input FILE.")
        yield sys.stdin.buffer, "standard input"
        return
    check_input("--input", path)
    with open(path, "rb") as file:
        yield file, path


@contextlib.contextmanager
def write_output(path: str | None) -> Iterator[IO[bytes]]:
    """The file to write, whole or not at all; standard output without a path."""
    if path is None:
        yield sys.stdout.buffer
        return
    with open_atomic(path, "wb") as file:
        yield file


def _progress_bar(output: str | None) -> tqdm[None]:
    """Lines so far, on standard error; only where it is a terminal that shows nothing else."""
    is_hidden = not sys.stderr.isatty() or (output is None and sys.stdout.isatty())
    return tqdm(unit=" lines", disable=is_hidden)
