"""What a long run says on standard error: a bar on a terminal, now and then a line in a log."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

BAR_FORMAT = "{percentage:3.0f} %|{bar}| {desc} [{elapsed}, left {remaining}]"
BAR_WITHOUT_END = "{desc} [{elapsed}]"
LOG_SECONDS = 30.0  # between two lines in a log


class Progress:
    """Lines, tokens and seconds of a run, of which it tells.

    Args:
        total_bytes: of the input; None: it has no known end.
        begun_bytes: of the input, that were done before the run.
        is_shown: whether anything is told at all.
        has_bar: whether standard error is a terminal that shows nothing else.
    """

    def __init__(
        self, total_bytes: int | None, begun_bytes: int, is_shown: bool, has_bar: bool
    ) -> None:
        self.num_lines = self.num_tokens = 0
        self.seconds = 0.0  # of work, without waiting for input
        self._total, self._begun, self._done = total_bytes, begun_bytes, begun_bytes
        self._is_shown, self._has_bar = is_shown, has_bar and is_shown
        self._logged = time.monotonic()
        self._bar: Any = None

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar, if there is one, within the block; warnings appear above it."""
        if not self._has_bar:
            yield
            return
        bar_format = BAR_WITHOUT_END if self._total is None else BAR_FORMAT
        bar = tqdm(total=self._total, initial=self._begun, bar_format=bar_format, leave=False,
                   miniters=1, mininterval=0.0, dynamic_ncols=True, desc="0 lines")  # fmt: skip
        with bar as self._bar, logging_redirect_tqdm([logging.getLogger()]):
            yield

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Add the time that the block takes to the seconds of work."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - begun

    def add(self, num_lines: int, num_tokens: int, num_bytes: int) -> None:
        """Count lines and output tokens that are done; the input is done up to `num_bytes`."""
        self.num_lines += num_lines
        self.num_tokens += num_tokens
        self._done = num_bytes
        if self._bar is not None:
            self._bar.set_description_str(self._speed(), refresh=False)
            most = num_bytes if self._total is None else min(num_bytes, self._total)
            self._bar.update(most - self._bar.n)
        elif self._is_shown and time.monotonic() - self._logged >= LOG_SECONDS:
            self._logged = time.monotonic()
            sys.stderr.write(f"{self._speed()}{self._left()}\n")
            sys.stderr.flush()

    def _speed(self) -> str:
        rate = self.num_lines / max(self.seconds, 1e-9)
        return f"{self.num_lines:,} lines, {rate:,.1f} lines/s"

    def _left(self) -> str:
        """How much of a known input is done, and the time for the rest at this speed."""
        done = self._done - self._begun
        if self._total is None or done <= 0:
            return ""
        left = self.seconds * max(0, self._total - self._done) / done
        percent = 100 * min(1.0, self._done / max(1, self._total))
        return f", {percent:.0f} %, {tqdm.format_interval(left)} left"

    def summary(self) -> str:
        """What this run has done, as one sentence."""
        return (
            f"{self.num_lines:,} lines, {self.num_tokens:,} tokens in {self.seconds:.1f} s: "
            f"{self.num_lines / max(self.seconds, 1e-9):,.1f} lines/s, "
            f"{self.num_tokens / max(self.seconds, 1e-9):,.1f} tokens/s."
        )


def total_size(paths: Sequence[str]) -> int | None:
    """Bytes of all files, `-` being standard input; None if one is a pipe or a device."""
    total = 0
    for path in paths:
        try:
            found = os.fstat(0) if path == "-" else os.stat(path)
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        total += found.st_size
    return total
