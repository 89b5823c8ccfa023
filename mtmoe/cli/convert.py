"""`mtmoe convert`: models from and to other programs, checkpoints gathered and sharded."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mtmoe.errors import ConfigError
from mtmoe.files import check_checkpoint_output, check_input, read_lines

if TYPE_CHECKING:
    from mtmoe.interop.foreign_model import ForeignModel

OURS, HUGGINGFACE, CTRANSLATE2 = "mtmoe", "huggingface", "ctranslate2"
GATHERED, SHARDED = "gathered", "sharded"
LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+()/_-]*")  # also in YAML
OF_FAIRSEQ, OF_CARD = ("dict", "spm", "languages"), ("licence", "manifest", "scores")
USUAL_SHARD_GB = 5.0
BILLION = 1_000_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "source", metavar="MODEL",
        help="a folder of Hugging Face (M2M-100, NLLB, NLLB-MoE), a checkpoint of fairseq's "
        "transformer or of its nllb branch (the -shared file), or a checkpoint of ours",
    )  # fmt: skip
    parser.add_argument(
        "--to", choices=(OURS, HUGGINGFACE, CTRANSLATE2, GATHERED, SHARDED), default=OURS,
        help="what to write: a checkpoint of ours (the default), a folder for another program, or "
        "a checkpoint of ours in its other format, the optimizer's state included: one .pt "
        "(gathered) or a folder (sharded)",
    )  # fmt: skip
    parser.add_argument("--output", required=True, metavar="OUT", help="file or folder to write")
    parser.add_argument(
        "--shard-gb", type=float, default=USUAL_SHARD_GB, metavar="GB",
        help="split weights into files of at most so many GB (default %(default)s)",
    )  # fmt: skip
    text = parser.add_argument_group("fairseq", "what a checkpoint of fairseq does not hold")
    text.add_argument("--dict", metavar="FILE", help="its dict.txt")
    text.add_argument("--spm", metavar="FILE", help="its SentencePiece model")
    text.add_argument("--languages", metavar="LANG,LANG", help="in the order of their tags")
    card = parser.add_argument_group("model card", "README.md beside what is written")
    card.add_argument("--licence", metavar="NAME", help="e.g. cc-by-4.0")
    card.add_argument("--manifest", metavar="FILE", help="manifest.json of the training data")
    card.add_argument("--scores", metavar="FILE", help="scores.md of an evaluation")


def run(args: argparse.Namespace) -> None:
    """Convert; wrong options are refused before weights are read.

    Raises:
        ConfigError, CheckpointError, DataError: a user's mistake.
        OSError: the disk is full; nothing is left behind.
    """
    if not 0 < args.shard_gb < float("inf"):
        raise ConfigError(f"--shard-gb must be a number above 0, but is {args.shard_gb}.")
    _check_used(args)
    if args.to in (OURS, GATHERED):
        check_checkpoint_output("--output", args.output, _inputs(args))
    if args.to == OURS:
        from mtmoe.interop.foreign_model import import_model

        model = _read_foreign(args)
        import_model(model, args.output)
        _tell_flags(model)
    elif args.to in (GATHERED, SHARDED):
        _change_format(args)
    else:
        _export(args)
    sys.stdout.write(f"{args.output}\n")


def _check_used(args: argparse.Namespace) -> None:
    """Refuse options that the wanted output has no use for."""
    is_fairseq = args.to == OURS and not Path(args.source).is_dir()
    rules = [(OF_FAIRSEQ, is_fairseq, "a checkpoint of fairseq is read")]
    rules += [(OF_CARD, args.to in (HUGGINGFACE, CTRANSLATE2), "a model card is written")]
    for names, is_used, case in rules:
        for name in names:
            if getattr(args, name) is not None and not is_used:
                raise ConfigError(f"--{name} must be given where {case}, but is not here.")
    if args.shard_gb != USUAL_SHARD_GB and args.to != HUGGINGFACE:
        raise ConfigError(f"--shard-gb must be given with --to huggingface, but it is {args.to}.")


def _inputs(args: argparse.Namespace) -> list[str | Path | None]:
    """All files that are read, those of other ranks beside fairseq's -shared file included."""
    from mtmoe.interop.fairseq_models import rank_files

    return [args.source, args.dict, args.spm, *rank_files(Path(args.source)).values()]


def _tell_flags(model: ForeignModel) -> None:
    """How the model trains on: what differs from the defaults of fairseq-train with our task."""
    from mtmoe.config import MultitaskConfig, TransformerConfig
    from mtmoe.surgery.state import describe_flags, flat_settings

    told = flat_settings(model.config)
    usual = flat_settings(TransformerConfig()) | {
        name: getattr(MultitaskConfig(), name) for name in ("encoder_tags", "decoder_start")
    }
    told |= {"encoder_tags": model.encoder_tags, "decoder_start": model.decoder_start}
    sys.stderr.write(describe_flags(usual, told))


def _change_format(args: argparse.Namespace) -> None:
    from mtmoe.checkpoint.change_format import gather_checkpoint, shard_checkpoint
    from mtmoe.interop.output_folder import check_new_folder

    if args.to == GATHERED:
        gather_checkpoint(args.source, args.output)
    else:
        check_new_folder("--output", args.output)
        shard_checkpoint(args.source, args.output)


def _read_foreign(args: argparse.Namespace) -> ForeignModel:
    """The model to take over: a folder is Hugging Face's, a file fairseq's."""
    from mtmoe.interop.fairseq_models import TextFiles, read_fairseq
    from mtmoe.interop.huggingface_in import read_folder

    if Path(args.source).is_dir():
        return read_folder(Path(args.source))
    check_input("MODEL", args.source)
    for option in ("dict", "spm", "languages"):
        if not getattr(args, option):
            raise ConfigError(
                f"--{option} must be given for a checkpoint of fairseq, but is not. "
                "A checkpoint of ours is handed on with --to."
            )
    languages = [name.strip() for name in args.languages.rstrip(", ").split(",")]
    if len(set(languages)) < len(languages) or not all(re.fullmatch(r"\w+", n) for n in languages):
        raise ConfigError(
            f"--languages must be different words, as eng_Latn,deu_Latn, but is {args.languages!r}."
        )
    return read_fairseq(Path(args.source), TextFiles(Path(args.dict), Path(args.spm), languages))


def _check_card(args: argparse.Namespace) -> None:
    """Refuse what cannot stand in a model card or beside it."""
    from mtmoe.interop.huggingface_tokenizer import read_json

    if args.licence is not None and not LICENCE.fullmatch(args.licence):
        raise ConfigError(
            "--licence must be a name of letters, digits, blanks and .-+()/, but is "
            f"{args.licence!r:.80}. Give for example cc-by-4.0."
        )
    for option in ("manifest", "scores"):
        if getattr(args, option) is not None:
            check_input(f"--{option}", getattr(args, option))
    if args.manifest:
        read_json(Path(args.manifest))
    if args.scores:
        read_lines(args.scores)


def _export(args: argparse.Namespace) -> None:
    from mtmoe.interop.output_folder import check_new_folder, folder_atomic

    check_new_folder("--output", args.output)
    _check_card(args)
    from mtmoe.checkpoint.fairseq_file import load_checkpoint
    from mtmoe.interop import ctranslate2_out, huggingface_out
    from mtmoe.interop.card import CardFacts, write_card
    from mtmoe.interop.one_expert import as_dense

    checkpoint = as_dense(load_checkpoint(args.source, is_mapped=True))
    manifest, scores = (Path(f) if f else None for f in (args.manifest, args.scores))
    with folder_atomic(args.output) as folder:
        if args.to == CTRANSLATE2:
            ctranslate2_out.write_folder(checkpoint, folder)
        else:
            huggingface_out.write_folder(checkpoint, folder, int(args.shard_gb * BILLION))
        write_card(checkpoint, folder, CardFacts(args.licence, manifest, scores), args.to)
