"""What every row of the translation benchmark is given: sentences, and how its calls are made.

Imported in the peers' environment too: needs nothing but Python.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.worker import Call

WORK = "work.json"
FLOAT32 = "float32"


@dataclass(frozen=True)
class Work:
    """N sentences, of which each is to have `length` output tokens, whatever the model wants."""

    text: list[str]
    pieces: list[list[str]]  # tags, pieces, end
    ids: list[list[int]]  # of `pieces`
    num_symbols: int  # V
    start: int  # the target language's tag, which decoders read first
    heads: int  # attention heads of all models
    length: int  # tokens of each output, the end included: as many steps of the decoder

    @property
    def num_tokens(self) -> int:
        """Output tokens of all sentences."""
        return len(self.ids) * self.length


def write_work(work: Work, folder: Path) -> None:
    """Leave the work in the folder of the models."""
    (folder / WORK).write_text(json.dumps(asdict(work)), "utf-8")


def read_work(folder: Path) -> Work:
    """The work that was left in the folder."""
    return Work(**json.loads((folder / WORK).read_text("utf-8")))


def call_name(beam: int, batch: int) -> str:
    """The name of the call that searches with `beam` in batches of `batch` sentences."""
    return f"beam {beam}, batch {batch}"


def make_calls(options: dict[str, Any], translate: Callable[[int, int], int]) -> dict[str, Call]:
    """A call for each beam and batch of `options`.

    Args:
        translate: translates all sentences with the (beam, batch) it is given; returns the number
            of output tokens, ends included.
    """

    def call(beam: int, batch: int) -> Call:
        return Call(lambda: translate(beam, batch))

    sizes = ((beam, batch) for beam in options["beams"] for batch in options["batches"])
    return {call_name(beam, batch): call(beam, batch) for beam, batch in sizes}


def batch_sorted(ids: Sequence[Sequence[int]], batch: int) -> Iterator[list[Sequence[int]]]:
    """Sentences of like lengths, `batch` at a time, longest first."""
    ordered = sorted(ids, key=len, reverse=True)
    for first in range(0, len(ordered), batch):
        yield ordered[first : first + batch]
