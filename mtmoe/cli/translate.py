"""`mtmoe translate`: line in, line out."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import IO, Any

from mtmoe import __version__
from mtmoe.cli.progress import Progress, total_size
from mtmoe.cli.translation_ranks import (
    add_rank_arguments,
    is_first_rank,
    load_model,
    open_ranks,
    serve_ranks,
)
from mtmoe.cli.translation_run import NUM_EXPLAINED, StreamOutput, TranslationRun, open_sources
from mtmoe.errors import CheckpointError, ConfigError, DataError
from mtmoe.files import check_input, check_output, is_replaceable, open_atomic
from mtmoe.inference.budgets import check_expert_memory, check_threads
from mtmoe.inference.formats import Format, parse_columns
from mtmoe.inference.resume import ResumableOutput, model_fingerprint
from mtmoe.inference.search_config import SearchConfig

NO_SETTINGS = (  # that change no output
    "command",
    "files",
    "input",
    "output",
    "resume",
    "threads",
    "expert_memory",
    "expert_parallel_size",
    "quiet",
)
EXAMPLES = """\
examples:
  type a line, read its translation:
    mtmoe translate --model best.pt --target-lang de
  files:
    mtmoe translate --model best.pt --target-lang de a.txt b.txt > out.txt
    mtmoe translate --model best.pt --target-lang de --output out.txt big.txt
  go on after an interruption:
    mtmoe translate --model best.pt --target-lang de --output out.txt big.txt --resume
  translate the second column of a table:
    mtmoe translate --model best.pt --target-lang de --tsv 2 table.tsv > translated.tsv
  lines such as {"text": "Save", "target_lang": "de", "id": 7}:
    mtmoe translate --model best.pt --json-input lines.jsonl > translated.jsonl
  three translations of each line, and the experts that made the first:
    mtmoe translate --model best.pt --target-lang de --n-best 3 --explain lines.txt
  on four GPUs, two of which hold the experts of one copy of the model:
    torchrun --nproc_per_node 4 $(which mtmoe) translate --model best.pt --target-lang de \\
        --expert-parallel-size 2 --output out.txt big.txt

exit codes: 0 done; 1 a failure of the machine; 2 a mistake in options or input;
130 Ctrl-C; 141 the reader of the output has left; 143 SIGTERM
"""


SEARCH_OPTIONS = {
    item.name: "--n-best" if item.name == "num_best" else f"--{item.name.replace('_', '-')}"
    for item in fields(SearchConfig)
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtmoe translate`."""
    parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
    add_model_arguments(parser, is_target_required=False)
    _add_file_arguments(parser.add_argument_group("files"))
    _add_format_arguments(parser.add_argument_group("formats"))
    search = parser.add_argument_group("search")
    for item in fields(SearchConfig):
        option = SEARCH_OPTIONS[item.name]
        help_text = item.metadata["help"]
        if isinstance(item.default, bool):
            search.add_argument(option, action="store_true", help=help_text)
            continue
        help_text += " (default %(default)s)"
        kind = type(item.default)
        search.add_argument(
            option, dest=item.name, type=kind, default=item.default, metavar="N", help=help_text
        )
    search.add_argument(
        "--long", choices=("split", "truncate", "error"), default="split",
        help="what is done, with a warning, with a line too long for the model (default split)",
    )  # fmt: skip
    search.add_argument("--prefix", default="", help="what each translation begins with")


def make_search_config(args: argparse.Namespace, names: Iterable[str]) -> SearchConfig:
    """The search with the options of the fields `names`.

    Raises:
        ConfigError: one is wrong; names the option.
    """
    try:
        return SearchConfig(**{name: getattr(args, name) for name in names})
    except ConfigError as error:
        text = str(error)
        for name, option in SEARCH_OPTIONS.items():
            place = name if "_" in name else f"^{name}"  # "seed" and "beam" are words, too
            text = re.sub(rf"{place}\b", option, text)
        raise ConfigError(text) from None


def output_name(text: str) -> str | None:
    """The name that `--output` gives; None: standard output."""
    return None if text == "-" else text


def _add_file_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "files", nargs="*", metavar="FILE", help="text to read, - is standard input (the default)"
    )
    group.add_argument(
        "--input", action="append", default=[], metavar="FILE", help="the same as FILE"
    )
    group.add_argument(
        "--output",
        type=output_name,
        metavar="FILE",
        help="text to write, which appears when it is complete; - or left out: standard output",
    )
    group.add_argument(
        "--resume", action="store_true",
        help="go on where an interrupted run with the same --output and settings has stopped",
    )  # fmt: skip
    group.add_argument(
        "--quiet", action="store_true", help="neither progress nor summary, only warnings"
    )


def _add_format_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--tsv", metavar="COLUMNS",
        help="read tables and write them with the translation as a further column; COLUMNS is that "
        "of the text, 2, or several by name: text=2,source_lang=1,target_lang=3,prefix=4",
    )  # fmt: skip
    group.add_argument(
        "--json-input", action="store_true",
        help='read lines of JSON, {"text": ..., "source_lang": ..., "target_lang": ..., '
        '"prefix": ...}, all but text optional; other keys are written again; implies --json',
    )  # fmt: skip
    group.add_argument(
        "--json", action="store_true",
        help="write lines of JSON with text, translation, score, words, and with --n-best all",
    )  # fmt: skip
    group.add_argument(
        "--scores", action="store_true", help="write the score and a tab before each translation"
    )
    group.add_argument(
        "--explain", action="store_true",
        help=f"show the experts of each token in each layer: tables of the first {NUM_EXPLAINED} "
        "lines on standard error, or with --json the key experts",
    )  # fmt: skip


def add_model_arguments(parser: argparse.ArgumentParser, is_target_required: bool = True) -> None:
    """The options of all commands that load a model to translate."""
    parser.add_argument("--model", required=True, metavar="CKPT", help="checkpoint_*.pt to use")
    parser.add_argument(
        "--target-lang", required=is_target_required, metavar="XX", help="language to write"
    )
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
        "--expert-dtype",
        choices=("int4",),
        help="int4: keep the experts' weights in 4 bits, whatever --dtype is for the others (CPU); "
        "default: as --dtype",
    )
    parser.add_argument(
        "--expert-memory",
        type=float,
        metavar="GIB",
        help="read experts from the file when they are needed, and keep so much of them (CPU)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N",
        help="CPU cores to use; default: all; under torchrun, each rank uses one",
    )  # fmt: skip
    add_rank_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Translate; wrong options and files are refused before the model is loaded.

    Raises:
        ConfigError, DataError, CheckpointError: a user's mistake.
    """
    config = make_search_config(args, SEARCH_OPTIONS)
    form, paths = _choose_format(args), [*args.files, *args.input] or ["-"]
    check_weight_options(args)
    if not is_first_rank():
        serve_ranks(args)
        return
    _check_arguments(args, form, paths)
    with open_ranks(args) as ranks, _open_output(args) as output:
        from mtmoe.inference.record_translator import Defaults, RecordTranslator

        model = load_model(args, ranks)
        defaults = Defaults(args.source_lang, args.target_lang, args.prefix, args.long)
        translator = RecordTranslator(model, config, defaults)
        progress = _choose_progress(args, paths, output.mark.num_bytes)
        work = TranslationRun(translator, form, output, progress, args.explain)
        with progress.shown():
            work.translate(open_sources(paths))
    if not args.quiet:
        sys.stderr.write(f"{progress.summary()}\n")
    if output.mark.num_mistakes:
        raise DataError(
            f"all lines must be translatable, but {output.mark.num_mistakes} of "
            f"{output.mark.num_lines} are not. Their places are kept: correct them."
        )


def _choose_format(args: argparse.Namespace) -> Format:
    columns = None if args.tsv is None else parse_columns(args.tsv)
    writes_json = args.json or args.json_input
    return Format(args.json_input, writes_json, columns, args.scores, args.num_best)


def _check_arguments(args: argparse.Namespace, form: Format, paths: list[str]) -> None:
    """Refuse what cannot work.

    Raises:
        ConfigError, DataError: says what.
    """
    read = ["/dev/stdin" if path == "-" else path for path in paths]
    check_output("--output", args.output, [args.model, *read])
    if args.target_lang is None and not form.names_target:
        raise ConfigError("--target-lang must be the language to write, but is not given. Add it.")
    if args.resume and (args.output is None or not is_replaceable(args.output)):
        raise ConfigError(
            f"--resume must come with a file as --output, but that is {args.output or 'not given'}."
            " Name one."
        )
    for path in paths:
        if path != "-":
            check_input("input", path)
    if "-" in paths and sys.stdin is None:
        raise DataError("standard input must be open, but is closed. Name a FILE to read.")


@contextlib.contextmanager
def _open_output(args: argparse.Namespace) -> Iterator[StreamOutput | ResumableOutput]:
    """Standard output, a device, or a file that can be resumed."""
    if args.output is None or not is_replaceable(args.output):
        with write_output(args.output) as stream:
            yield StreamOutput(stream)
        return
    check_input("checkpoint", args.model, CheckpointError)
    with ResumableOutput(args.output, _settings(args)).open(args.resume) as output:
        yield output


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """All that the output depends on, but for the input."""
    given = {name: value for name, value in vars(args).items() if name not in NO_SETTINGS}
    return {**given, "model": model_fingerprint(args.model), "version": __version__}


def _choose_progress(args: argparse.Namespace, paths: list[str], begun_bytes: int) -> Progress:
    """What is told meanwhile: nothing where somebody types, no bar where translations appear."""
    is_typed = "-" in paths and sys.stdin.buffer.isatty()
    if is_typed and not args.quiet:
        sys.stderr.write("Type a line and press Enter to translate it; Ctrl-D ends.\n")
    is_shown = not (is_typed or args.quiet)
    has_bar = sys.stderr.isatty() and not (args.output is None and sys.stdout.isatty())
    return Progress(total_size(paths), begun_bytes, is_shown, has_bar)


def check_weight_options(args: argparse.Namespace) -> None:
    """Refuse wrong numbers of threads and for the memory of experts.

    Raises:
        ConfigError: says which.
    """
    check_threads("--threads", args.threads)
    check_expert_memory("--expert-memory", args.expert_memory)


@contextlib.contextmanager
def write_output(path: str | None) -> Iterator[IO[bytes]]:
    """The file to write, whole or not at all; standard output without a path."""
    if path is None:
        yield sys.stdout.buffer
        return
    with open_atomic(path, "wb") as file:
        yield file
