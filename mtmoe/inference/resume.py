"""An output file that an interrupted run leaves in a state from which another one goes on.

While `out.de` is written, `out.de.part` holds what is done, and the note `out.de.part.json` says
how far that is, of what input and with which settings. Both are gone when `out.de` appears under
its name, which is when it is complete. What was written after the last note is written again, so
that the file is the same, byte for byte, wherever the earlier run was killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from mtmoe.errors import ConfigError, DataError
from mtmoe.files import sync_folder, take_lock

log = logging.getLogger(__name__)
END_BYTES = 1 << 20  # of a checkpoint, whose checksums stand at its end


@dataclass(frozen=True)
class Mark:
    """How far an output has come."""

    num_lines: int = 0  # of the input
    num_bytes: int = 0  # of the input
    digest: str = ""  # SHA-256 of these lines, see `text.Chunk`
    num_mistakes: int = 0  # lines that could not be translated
    output_bytes: int = 0
    is_complete: bool = False


class ResumableOutput:
    """The unfinished file of an output, and the note beside it.

    Args:
        settings: of the run, JSON values; equal ones give equal output.
    """

    _file: IO[bytes]

    def __init__(self, path: str, settings: Mapping[str, Any]) -> None:
        self.path = Path(os.path.realpath(path))  # a link stays a link
        self.part = self.path.with_name(f"{self.path.name}.part")
        self.note = self.path.with_name(f"{self.path.name}.part.json")
        self.settings = json.loads(json.dumps(settings))
        self.mark, self._is_begun = Mark(), False

    def read_note(self) -> Mark | None:
        """What the note says; None without one.

        Raises:
            DataError: it is damaged, or the unfinished file is not as it says.
            ConfigError: the settings were others; names the first one.
        """
        try:
            found = json.loads(self.note.read_bytes())
            mark, settings = Mark(**found["mark"]), found["settings"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{self.note} must be a note of mtmoe, but is damaged. "
                "Leave --resume out to start over."
            ) from None
        self._check_settings(settings)
        size = self.part.stat().st_size
        if size < mark.output_bytes and not (mark.is_complete and self.path.exists()):
            raise DataError(
                f"{self.part} must have at least {mark.output_bytes} bytes, but has {size}. "
                "Leave --resume out to start over."
            )
        return mark

    def _check_settings(self, found: Mapping[str, Any]) -> None:
        for name in sorted(self.settings.keys() | found.keys()):
            before, now = found.get(name), self.settings.get(name)
            if before != now and name == "model":
                raise ConfigError(
                    "--model must be that of the interrupted run, but is another one. "
                    "Give the same again, or leave --resume out to start over."
                )
            if before != now:
                raise ConfigError(
                    f"{name} must be as in the interrupted run ({before!r}), but is {now!r}. "
                    "Give the same again, or leave --resume out to start over."
                )

    @contextlib.contextmanager
    def open(self, is_resumed: bool) -> Iterator[ResumableOutput]:
        """Write the file; it gets its name when the block ends without an error.

        After an error, or a kill, what is done stays for a run that resumes; nothing stays if
        nothing is done.

        Raises:
            ConfigError: the settings differ, another run writes this output, or its unfinished
                file is somebody else's.
            DataError: what an earlier run left is damaged.
        """
        self._new_note.exists()  # a name that is too long fails before there is anything to leave
        with self._open_part() as self._file:
            if not self.note.exists() and os.fstat(self._file.fileno()).st_size:
                raise ConfigError(
                    f"{self.part} must be an output that an earlier run left, but has no note "
                    "beside it. Rename it, or name another --output."
                )
            found = self.read_note() if is_resumed else None
            self.mark, self._is_begun = found or Mark(), False
            try:
                yield self
                self._finish()
            except BaseException:
                self._leave()
                raise

    @contextlib.contextmanager
    def _open_part(self) -> Iterator[IO[bytes]]:
        """The unfinished file, which only one process at a time has open."""
        with open(os.open(self.part, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            if not (take_lock(file.fileno()) and self._has_its_name(file)):
                raise ConfigError(
                    f"--output must be a file of one run, but another one is writing {self.path}. "
                    "Wait for it, or name another file."
                )
            yield file

    def _has_its_name(self, file: IO[bytes]) -> bool:
        """Whether no other run has finished it before the lock was taken."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self.part))
        except FileNotFoundError:
            return False

    def write(self, text: bytes, mark: Mark) -> None:
        """Add `text`; then the output is at `mark`, whose `output_bytes` are counted here."""
        self._begin()
        self._file.write(text)
        self._take_note(mark)

    def _begin(self) -> None:
        """Before the first change: drop what was not noted, or all if nothing is resumed."""
        if self._is_begun:
            return
        if not self.mark.num_lines:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                done = json.loads(self.note.read_bytes())["mark"]["num_lines"]
                if done:
                    text = "an earlier run left %s lines of %s; they are lost."
                    log.warning(text, done, self.path)
            self._take_note(Mark())  # so that a file without a note is never ours
            sync_folder(self.note.parent)
        self._file.truncate(self.mark.output_bytes)
        self._file.seek(0, os.SEEK_END)
        self._is_begun = True

    def _take_note(self, mark: Mark) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self.mark = replace(mark, output_bytes=self._file.tell())
        with open(self._new_note, "w", encoding="utf-8") as file:
            json.dump({"settings": self.settings, "mark": asdict(self.mark)}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(self._new_note, self.note)

    def _finish(self) -> None:
        if self._was_renamed():
            self.part.unlink()
        else:
            self._begin()
            self._take_note(replace(self.mark, is_complete=True))
            os.replace(self.part, self.path)
        self.note.unlink()

    def _was_renamed(self) -> bool:
        """Whether the earlier run was killed between its last two steps."""
        is_empty = os.fstat(self._file.fileno()).st_size < self.mark.output_bytes
        return self.mark.is_complete and is_empty and self.path.exists()

    @property
    def _new_note(self) -> Path:
        return self.note.with_name(f"{self.note.name}.new")  # a kill leaves no heap of them

    def _leave(self) -> None:
        self._new_note.unlink(missing_ok=True)
        has_done_nothing = self._is_begun and not self.mark.num_lines
        if has_done_nothing or not self.note.exists():
            self.part.unlink(missing_ok=True)
            self.note.unlink(missing_ok=True)
        elif self._is_begun:
            done = self.mark.num_lines
            log.warning("%d lines are done, in %s; --resume goes on there.", done, self.part)


def model_fingerprint(path: str | Path) -> str:
    """What tells a model's files from others': sizes, and the first and last bytes of each.

    Checksums of all weights stand at the end of a `.pt` file.
    """
    path, digest = Path(path), hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        size = file.stat().st_size
        with open(file, "rb") as stream:
            digest.update(b"%d\n%b" % (size, stream.read(END_BYTES)))
            stream.seek(max(0, size - END_BYTES))
            digest.update(stream.read(END_BYTES))
    return digest.hexdigest()
