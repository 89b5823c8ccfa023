"""`mtmoe translate`: line in, line out."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import IO, TYPE_CHECKING

from tqdm import tqdm

from mtmoe.errors import ConfigError, DataError
from mtmoe.files import check_input, check_output, open_atomic
from mtmoe.inference.search_config import SearchConfig
from mtmoe.inference.text import read_chunks

if TYPE_CHECKING:
    from mtmoe.inference.engine import Translator

logger = logging.getLogger(__name__)

CHUNK_LINES = 2000  # read, sorted by length and written together


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtmoe translate`."""
    parser.add_argument("--model", required=True, metavar="CKPT", help="checkpoint_*.pt to use")
    parser.add_argument("--target-lang", required=True, metavar="XX", help="language to write")
    parser.add_argument(
        "--source-lang",
        metavar="XX",
        help="language to read; default: the only one trained for this target, or en",
    )
    for item in fields(SearchConfig):
        kind, text = type(item.default), item.metadata["help"]
        option = "--" + item.name.replace("_", "-")
        help_text = f"{text} (default %(default)s)"
        parser.add_argument(option, type=kind, default=item.default, metavar="N", help=help_text)
    parser.add_argument("--input", metavar="FILE", help="text to read; default: standard input")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="text to write, which appears when it is complete; default: standard output",
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda", "auto"),
        default="auto",
        help="auto (the default): cuda where there is one",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU cores to use; default: all")


def run(args: argparse.Namespace) -> None:
    """Translate; wrong options and files are refused before the model is loaded.

    Raises:
        ConfigError, DataError, CheckpointError: a user's mistake.
    """
    config = SearchConfig(args.beam, args.length_penalty, args.max_tokens)
    _check_threads(args.threads)
    check_output("--output", args.output)
    with contextlib.ExitStack() as stack:
        stream, name = stack.enter_context(_open_input(args.input))
        translator = _load(args.model, args.device, args.threads)
        source_lang = _choose_source(translator, args.source_lang, args.target_lang)
        output = stack.enter_context(_open_output(args.output))
        bar = stack.enter_context(_progress_bar(args.output))
        for lines in read_chunks(stream, name, CHUNK_LINES):
            options = asdict(config)
            translations = translator.translate(lines, source_lang, args.target_lang, **options)
            output.write("".join(f"{line}\n" for line in translations).encode())
            output.flush()
            bar.update(len(lines))


def _load(model: str, device: str, threads: int | None) -> Translator:
    from mtmoe.inference.engine import Translator

    return Translator.load(model, device, threads)


def _choose_source(translator: Translator, source_lang: str | None, target_lang: str) -> str:
    if source_lang is None:
        source_lang = translator.default_source(target_lang)
    translator.check_direction(source_lang, target_lang)
    direction = f"{source_lang}-{target_lang}"
    if direction not in translator.directions:
        known = ", ".join(translator.directions)
        logger.warning("the model was not trained on %s, but on %s: zero-shot.", direction, known)
    return source_lang


def _check_threads(threads: int | None) -> None:
    if threads is not None and threads < 1:
        raise ConfigError(f"--threads must be at least 1, but is {threads}. Give 1 or more.")


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
def _open_output(path: str | None) -> Iterator[IO[bytes]]:
    if path is None:
        yield sys.stdout.buffer
        return
    with open_atomic(path, "wb") as file:
        yield file


def _progress_bar(output: str | None) -> tqdm[None]:
    """Lines so far, on standard error; only where it is a terminal that shows nothing else."""
    is_hidden = not sys.stderr.isatty() or (output is None and sys.stdout.isatty())
    return tqdm(unit=" lines", disable=is_hidden)
