"""Systems to evaluate, and the translations that are kept of each."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import mtmoe
from mtmoe.errors import CheckpointError, ConfigError
from mtmoe.files import check_input, open_atomic, sha256
from mtmoe.report.parallel_text import ParallelText

if TYPE_CHECKING:
    from mtmoe.inference.engine import Translator

COPY = "copy"  # the system that repeats its source: a floor for every other
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class System:
    """A checkpoint under the name of its column; without a checkpoint, the copying system."""

    name: str
    checkpoint: Path | None
    beam: int = 4

    @cached_property
    def checksum(self) -> str:
        """What the translations depend on, besides the text and the program."""
        return sha256(self.checkpoint) if self.checkpoint else COPY

    @cached_property
    def _translator(self) -> Translator:
        from mtmoe.inference.engine import Translator

        assert self.checkpoint is not None
        return Translator.from_checkpoint(self.checkpoint)

    def translate(self, text: ParallelText) -> list[str]:
        """A translation of each source sentence; loads the model at the first call."""
        if self.checkpoint is None:
            return list(text.source)
        languages = text.source_lang, text.target_lang
        return self._translator.translate(list(text.source), *languages, beam=self.beam)


def parse_system(text: str, beam: int) -> System:
    """The system that `NAME=CHECKPOINT` or `copy` stands for.

    Raises:
        ConfigError: the text is of another form.
        CheckpointError: there is no such file.
    """
    name, _, path = text.partition("=")
    if text == COPY:
        return System(COPY, None, beam)
    if not path or not name.isidentifier() or name == COPY:
        raise ConfigError(
            f"--system must be copy, or NAME=CHECKPOINT with a name of letters and digits, but is "
            f"{text!r}. Write for example --system full=checkpoints/checkpoint_best.pt."
        )
    check_input(f"checkpoint of system {name}", path, CheckpointError)
    return System(name, Path(path), beam)


@dataclass(frozen=True)
class Record:
    """What kept translations came from; they are reused while all of it is unchanged."""

    checkpoint: str  # checksum, or "copy"
    source: str  # checksum of the source sentences
    beam: int
    version: str  # of mtmoe
    hypotheses: str = ""  # checksum of the translations


class HypothesisStore:
    """The folder of `{system}.{direction}.{lang}` files, each with a `.json` record beside it.

    The record is written last, so that translations without a record are made again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def translate(self, system: System, text: ParallelText) -> list[str]:
        """The system's translations of `text`, made now or taken from the folder."""
        record = make_record(system, text)
        kept = self.read(system.name, text, record)
        if kept is not None:
            return kept
        start = time.monotonic()
        hypotheses = system.translate(text)
        self._write(system.name, text, record, hypotheses)
        seconds = time.monotonic() - start
        log.info(
            "%s %s: %d sentences in %.1f s", system.name, text.direction, len(hypotheses), seconds
        )
        return hypotheses

    def read(
        self, system: str, text: ParallelText, wanted: Record | None = None
    ) -> list[str] | None:
        """Kept translations of exactly `text`, and as `wanted` if it is given; else None."""
        path = self._path(system, text)
        try:
            record = Record(**json.loads(_beside(path).read_text("utf-8")))
            lines = path.read_bytes().decode("utf-8").split("\n")[:-1]
        except (FileNotFoundError, ValueError, TypeError):
            return None
        is_whole = record.hypotheses == checksum(lines) and record.source == checksum(text.source)
        is_wanted = wanted in (None, dataclasses.replace(record, hypotheses=""))
        return lines if is_whole and is_wanted else None

    def _write(
        self, system: str, text: ParallelText, record: Record, hypotheses: Sequence[str]
    ) -> None:
        path = self._path(system, text)
        with open_atomic(path) as file:
            file.writelines(f"{line}\n" for line in hypotheses)
        complete = dataclasses.replace(record, hypotheses=checksum(hypotheses))
        with open_atomic(_beside(path)) as file:
            file.write(json.dumps(dataclasses.asdict(complete), indent=2) + "\n")

    def _path(self, system: str, text: ParallelText) -> Path:
        return self.folder / f"{system}.{text.direction}.{text.target_lang}"


def make_record(system: System, text: ParallelText) -> Record:
    """The record of translations that `system` would make of `text` now."""
    beam = system.beam if system.checkpoint else 0
    return Record(system.checksum, checksum(text.source), beam, mtmoe.__version__)


def checksum(lines: Sequence[str]) -> str:
    """SHA-256 of lines of text, in hexadecimal."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
