"""fairseq's programs with our task: its name, checks ahead of their own, failures in one sentence.

`--user-dir mtmoe` imports this while fairseq reads its command line: the only place that is reached
before fairseq opens checkpoints and folders.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import torch

from mtmoe.checkpoint.fairseq_file import check_readable, shards_name
from mtmoe.errors import CheckpointError, ConfigError, MtmoeError, describe_failure
from mtmoe.fairseq_view import one_sentence
from mtmoe.parallel.restart import init_method, register

TASK_NAME = "multitask_translation"
FULL_HELP = "--full-help"  # a word of ours, see `help_arguments`
READERS = ("fairseq-generate", "fairseq-interactive", "fairseq-validate")  # of checkpoints
TRAINERS = ("fairseq-train", "fairseq-hydra-train")


def fit_program() -> None:
    """Fit the program that imports the plugin, if it is one of fairseq's, to our task."""
    program = Path(sys.argv[0]).name if sys.argv else ""
    if program in READERS:
        with one_sentence():
            sys.argv += complete_arguments(sys.argv[1:])
    if program == TRAINERS[0]:
        with one_sentence():
            sys.argv[1:] = autocast_arguments(help_arguments(sys.argv[1:]))
        sys.argv += distributed_arguments(sys.argv[1:], os.environ, torch.cuda.is_available())
    if program in TRAINERS:
        register()
    if program in (*READERS, *TRAINERS):
        sys.excepthook = explain
        sys.unraisablehook = overlook_half_open


def complete_arguments(words: Sequence[str]) -> list[str]:
    """What a program that reads checkpoints lacks to use our task; checks its checkpoints.

    These programs take the task from the command line, not from the checkpoint, and their default
    is `translation`, which knows no language tags.

    Raises:
        CheckpointError: no checkpoint is given, or one that cannot be read.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--task", default=None)
    parser.add_argument("--path", default=None)
    parser.add_argument("--checkpoint-suffix", default="")
    parser.add_argument("--checkpoint-shard-count", default="1")
    parser.add_argument("-h", "--help", action="store_true")
    options, _ = parser.parse_known_args(list(words))
    if options.task not in (None, TASK_NAME):
        return []
    if not options.help:
        is_one_file = not options.checkpoint_suffix and options.checkpoint_shard_count == "1"
        _check_checkpoints(options.path, is_one_file)
    return [] if options.task else [f"--task={TASK_NAME}"]


def help_arguments(words: Sequence[str]) -> list[str]:
    """The words with `--help` as one that fairseq does not know until it knows all options.

    It would show its help before it has asked task, model, criterion and optimizer for theirs.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--task", default=None)
    if parser.parse_known_args(list(words))[0].task != TASK_NAME:
        return list(words)
    return [FULL_HELP if word in ("-h", "--help") else word for word in words]


def autocast_arguments(words: Sequence[str]) -> list[str]:
    """The words with `--bf16` as what it means here: products in bfloat16, weights in float32.

    fairseq takes it for a TPU's.

    Raises:
        ConfigError: the weights are to be bfloat16.
    """
    if "--memory-efficient-bf16" in words:
        raise ConfigError(
            "--memory-efficient-bf16 must not be given, but is: steps smaller than a bfloat16 "
            "weight's last bit would be lost. Use --bf16."
        )
    return ["--autocast=bfloat16" if word == "--bf16" else word for word in words]


def distributed_arguments(
    words: Sequence[str], environment: Mapping[str, str], has_gpu: bool
) -> list[str]:
    """The flags of fairseq-train that torchrun's environment stands for.

    Without them, fairseq on a CPU trains one model a rank, all into one folder.

    Args:
        environment: with RANK and WORLD_SIZE under torchrun.
    """
    world = int(environment.get("WORLD_SIZE", "1"))
    is_told = any(word.startswith("--distributed-init-method") for word in words)
    if world == 1 or "RANK" not in environment or is_told:
        return []
    on_gpu = has_gpu and "--cpu" not in words
    flags = {
        "world-size": world,
        "rank": environment["RANK"],
        "init-method": init_method(environment),
        "backend": "nccl" if on_gpu else "gloo",
    }
    found = [f"--distributed-{name}={value}" for name, value in flags.items()]
    device = environment.get("LOCAL_RANK", "0") if on_gpu else "0"
    return [*found, "--distributed-no-spawn", "--ddp-backend=legacy_ddp", f"--device-id={device}"]


def _check_checkpoints(path: str | None, is_one_file: bool) -> None:
    if path is None:
        raise CheckpointError(
            "--path must name a checkpoint, but is not given. Add --path checkpoint_best.pt."
        )
    if is_one_file and "://" not in path:
        for part in path.split(os.pathsep):  # several: an ensemble
            if shards_name(check_readable(part)) is not None:
                raise CheckpointError(
                    f"--path must name a gathered checkpoint, but {part} is sharded. Run `mtmoe "
                    "convert --to gathered` first; mtmoe's own commands read it as it is."
                )


def explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one sentence what ended a program, if the user or the machine did; else all of it."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted.\n")
    elif isinstance(error, MtmoeError):
        sys.stderr.write(f"error: {error}\n")
    elif isinstance(error, OSError) and error.errno:
        sys.stderr.write(f"error: {describe_failure(error)}\n")
    elif isinstance(error, FloatingPointError):
        sys.stderr.write(
            f"error: gradients must be finite, but are not ({error}). See above where the first "
            "such number arose; lower --lr, or set --clip-norm or a longer --warmup-updates.\n"
        )
    elif is_lost(error):
        rank = os.environ.get("RANK", "0")
        sys.stderr.write(f"error: rank {rank} stops, for another one has ended; see its message.\n")
    else:
        sys.__excepthook__(kind, error, trace)
        if "Timed out waiting" in str(error):
            sys.stderr.write(
                "error: every rank must answer within --collective-timeout, but one has not. "
                "See above where this one waited; raise the time if the other was only slow.\n"
            )


def is_lost(error: BaseException) -> bool:
    """Whether gloo says that the process of another rank is no more."""
    signs = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def overlook_half_open(unraisable: sys.UnraisableHookArgs) -> None:
    """Say nothing of fairseq's datasets that Ctrl-C met half open; pass on all else.

    Their finalisers close what they had not opened yet, and each would print a traceback.
    """
    module = getattr(unraisable.object, "__module__", None) or ""
    if issubclass(unraisable.exc_type, AttributeError) and module.startswith("fairseq.data"):
        return
    sys.__unraisablehook__(unraisable)
