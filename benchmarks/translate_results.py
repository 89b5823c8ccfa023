"""Timings of the translation benchmark as output tokens per second and ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.timings import markdown_table, quartiles, unique
from benchmarks.translate_calls import FLOAT32

MIB = 2**20


@dataclass(frozen=True)
class RowName:
    """What one row runs."""

    engine: str  # "mtmoe", "ctranslate2", "fairseq" or "huggingface"
    model: str  # of `translate_models.prepare`
    dtype: str
    workers: int  # batches side by side
    threads: int  # of each worker

    def __str__(self) -> str:
        return f"{self.engine} {self.model} {self.dtype} {self.workers}x{self.threads}"


@dataclass(frozen=True)
class Result:
    """One row with one beam."""

    row: RowName
    beam: int
    batch: int  # sentences; the fastest one
    num_tokens: int  # output tokens of one call
    seconds: list[float]  # one a round
    peak_bytes: int  # of the row's process, its children included

    @property
    def tokens_per_second(self) -> float:
        """At the median time."""
        return self.num_tokens / median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The tokens per second between which half of the rounds lie, lower first."""
        fast, slow = quartiles(self.seconds)
        return self.num_tokens / slow, self.num_tokens / fast


def find_reference(results: Sequence[Result], beam: int) -> Result | None:
    """What ratios are to: CTranslate2 float32 with one worker, else our own dense float32."""

    def is_plain(row: RowName, engine: str) -> bool:
        return (row.engine, row.model, row.dtype) == (engine, "dense", FLOAT32)

    of_beam = [r for r in results if r.beam == beam]
    theirs = [r for r in of_beam if is_plain(r.row, "ctranslate2") and r.row.workers == 1]
    ours = [r for r in of_beam if is_plain(r.row, "mtmoe")]
    return next(iter(theirs + ours), None)


def ratio_of(result: Result, results: Sequence[Result]) -> float | None:
    """Speed over the reference's; None without one."""
    reference = find_reference(results, result.beam)
    if reference is None:
        return None
    return result.tokens_per_second / reference.tokens_per_second


def as_dicts(results: Sequence[Result]) -> list[dict[str, object]]:
    """The entries of the JSON file."""
    return [
        {
            "engine": r.row.engine,
            "model": r.row.model,
            "dtype": r.row.dtype,
            "beam": r.beam,
            "workers": r.row.workers,
            "threads": r.row.threads,
            "batch": r.batch,
            "tokens_per_second": r.tokens_per_second,
            "ratio": ratio_of(r, results),
            "low": r.quartiles[0],
            "high": r.quartiles[1],
            "rounds": len(r.seconds),
            "peak_mib": r.peak_bytes / MIB,
        }
        for r in results
    ]


def to_markdown(results: Sequence[Result]) -> str:
    """Rows down; for each beam the ratio, tokens per second with quartiles, and the batch."""
    beams = unique(r.beam for r in results)
    head = ["engine, model, dtype, workers x threads"]
    for beam in beams:
        head += [f"beam {beam}: ratio", "tokens/s (quartiles)", "batch"]
    found = {(r.row, r.beam): r for r in results}
    lines = []
    for row in unique(r.row for r in results):
        line = [str(row)]
        for beam in beams:
            line += _entries(found.get((row, beam)), results)
        peak = max(r.peak_bytes for r in results if r.row == row)
        lines.append([*line, f"{peak / MIB:.0f}"])
    return markdown_table([*head, "peak MiB"], lines)


def _entries(result: Result | None, results: Sequence[Result]) -> list[str]:
    if result is None:
        return ["-", "-", "-"]
    ratio, (low, high) = ratio_of(result, results), result.quartiles
    speed = f"{result.tokens_per_second:.0f} ({low:.0f}-{high:.0f})"
    return ["-" if ratio is None else f"{ratio:.2f}", speed, str(result.batch)]
