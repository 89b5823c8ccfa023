"""Errors that a user can cause, and the one place where commands turn errors into exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

EXIT_FAILURE = 1
EXIT_USER_MISTAKE = 2
EXIT_INTERRUPTED = 130


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


def run_command(main: Callable[[], None]) -> int:
    """Run `main`, say what went wrong in one sentence on standard error, return the exit code.

    Returns:
        0; 1 for failures of the machine (full disk, unreadable file); 2 for a user's mistake;
        130 after Ctrl-C. Errors of the program itself pass through with their traceback.
    """
    try:
        main()
        sys.stdout.flush()
    except MtmoeError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_MISTAKE
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left: nothing more to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror or error}{where}.", file=sys.stderr)
        return EXIT_FAILURE
    return 0
