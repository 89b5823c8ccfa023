"""Errors that a user can cause, and the one place where commands turn errors into exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

EXIT_FAILURE = 1
EXIT_USER_MISTAKE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE ended
EXIT_TERMINATED = 143
SECONDS_TO_TELL = 10.0


class MtmoeError(Exception):
    """A user's mistake: one sentence that names the option, file, line or key, and what to do."""


class ConfigError(MtmoeError):
    """A setting has a value it must not have."""


class LayoutError(MtmoeError):
    """The model does not fit the mesh of ranks."""


class CheckpointError(MtmoeError):
    """A checkpoint is missing, damaged, or of another kind."""


class DataError(MtmoeError):
    """A text or data file is missing, damaged, or does not fit the others."""


class Terminated(BaseException):
    """SIGTERM arrived: files that are half written are removed on the way out."""


def run_command(main: Callable[[], None], is_first_rank: bool = True) -> int:
    """Run `main`, say what went wrong in one sentence on standard error, return the exit code.

    Args:
        is_first_rank: else a user's mistake is left for rank 0 to tell, which makes it, too.

    Returns:
        0; 1 for failures of the machine (full disk or memory, unreadable file); 2 for a user's
        mistake; 130 after Ctrl-C; 141 if the reader of the output has left; 143 after SIGTERM.
        Errors of the program itself pass through with their traceback.
    """
    try:
        with terminated_by_exception():
            check_streams()
            main()
            sys.stdout.flush()
    except MtmoeError as error:
        if is_first_rank:
            print(f"error: {error}", file=sys.stderr)
        else:
            time.sleep(SECONDS_TO_TELL)  # torchrun ends all ranks when one has ended
        return EXIT_USER_MISTAKE
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Terminated:
        if is_first_rank:
            print("terminated.", file=sys.stderr)
        return EXIT_TERMINATED
    except BrokenPipeError:  # the reader of our output has left: nothing more to say
        _drop_output()
        return EXIT_BROKEN_PIPE
    except (OSError, MemoryError, RuntimeError) as error:
        if not isinstance(error, OSError) and not _is_out_of_memory(error):
            raise
        print(f"error: {describe_failure(error)}", file=sys.stderr)
        _drop_output()
        return EXIT_FAILURE
    return 0


def _drop_output() -> None:
    """What standard output does not take is not tried again, with a traceback, at the end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def check_streams() -> None:
    """Refuse a closed standard output (`>&-`); a closed standard error swallows what is said.

    Raises:
        ConfigError: standard output is closed.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (to the end)
    if sys.stdout is None:
        raise ConfigError(
            "standard output must be open, but is closed. Lead it to a file, or to /dev/null."
        )


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python or PyTorch, which has an error of its own for a GPU only, lacked memory."""
    told = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(words in str(error) for words in told)


def describe_failure(error: Exception) -> str:
    """A failure of the machine in one sentence, with the file if it is known."""
    if not isinstance(error, OSError):
        return "not enough memory. Take a smaller model, or a machine with more memory."
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}."


@contextlib.contextmanager
def terminated_by_exception() -> Iterator[None]:
    """SIGTERM raises `Terminated`, where it would end the process at once."""

    def stop(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not stop the tidying
        raise Terminated

    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until the block ends; a second one does not wait.

    An exception inside Python code that a backward pass calls can abort the whole process.
    """
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield
        return
    waiting: list[int] = []

    def remember(number: int, frame: object) -> None:
        if waiting:
            raise KeyboardInterrupt
        waiting.append(number)

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if waiting:
        raise KeyboardInterrupt
