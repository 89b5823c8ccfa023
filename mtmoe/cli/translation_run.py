"""The loop of `mtmoe translate`: chunks of lines in, their translations out, in order."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from mtmoe.cli.progress import Progress
from mtmoe.errors import DataError
from mtmoe.inference.formats import Format, read_record, write_record
from mtmoe.inference.resume import Mark, ResumableOutput
from mtmoe.inference.text import Chunk, read_chunks

if TYPE_CHECKING:
    from mtmoe.inference.record_translator import Answer, RecordTranslator

NUM_EXPLAINED = 10  # lines whose experts are shown as tables


@dataclass
class StreamOutput:
    """An output that is written as it comes."""

    stream: IO[bytes]
    mark: Mark = field(default_factory=Mark)

    def write(self, text: bytes, mark: Mark) -> None:
        """Add `text`; then the output is at `mark`."""
        self.stream.write(text)
        self.stream.flush()
        self.mark = mark


@dataclass
class TranslationRun:
    """Translates files to an output."""

    translator: RecordTranslator
    form: Format
    output: StreamOutput | ResumableOutput
    progress: Progress
    is_explained: bool

    def translate(self, sources: Iterable[tuple[str, IO[bytes]]]) -> None:
        """Translate all lines that the output does not have yet.

        Raises:
            ConfigError: the model has no experts to explain.
            DataError: the output was begun with another input.
        """
        if self.is_explained:
            from mtmoe.inference.explain import check_has_experts

            check_has_experts(self.translator.translator)
        chunks = read_chunks(sources, is_prompt=isinstance(self.output, StreamOutput))
        for chunk in skip_done(chunks, self.output.mark):
            with self.progress.measured():
                records = [read_record(line, self.form) for line in chunk.lines]
                answers = self.translator.translate(records)
            self._write(chunk, answers)

    def _write(self, chunk: Chunk, answers: list[Answer]) -> None:
        num_mistakes = sum(bool(answer.record.mistake) for answer in answers)
        num_mistakes += self.output.mark.num_mistakes
        mark = Mark(chunk.lines[-1].number, chunk.num_bytes, chunk.digest, num_mistakes)
        self.output.write("".join(map(self._format, answers)).encode(), mark)
        num_tokens = sum(len(answer.ranked[0].pieces) for answer in answers)
        self.progress.add(len(answers), num_tokens, chunk.num_bytes)

    def _format(self, answer: Answer) -> str:
        added = self._explain(answer) if self.is_explained else {}
        return write_record(answer.record, answer.ranked, self.form, added)

    def _explain(self, answer: Answer) -> dict[str, Any]:
        """The experts as a key of JSON, or else as tables on standard error."""
        from mtmoe.inference.explain import draw_table, explain

        record, is_table = answer.record, not self.form.writes_json
        if not answer.requests or (is_table and record.number > NUM_EXPLAINED):
            return {}
        experts = explain(self.translator, answer)
        if not is_table:
            return {"experts": experts}
        sys.stderr.write(f"experts of {record.name} and their weights:\n")
        sys.stderr.writelines(map(draw_table, experts.values()))
        return {}


def skip_done(chunks: Iterable[Chunk], done: Mark) -> Iterator[Chunk]:
    """The chunks after those that are done.

    Raises:
        DataError: the lines that are done were others.
    """
    if done.is_complete:
        return
    is_found = done.num_lines == 0
    for chunk in chunks:
        last = chunk.lines[-1].number
        if is_found:
            yield chunk
        elif last >= done.num_lines:
            if (last, chunk.digest) != (done.num_lines, done.digest):
                break
            is_found = True
    if not is_found:
        raise DataError(
            f"the input must begin with the {done.num_lines} lines that the interrupted run has "
            "read, but does not. Give the same input, or leave --resume out to start over."
        )


def open_sources(paths: Iterable[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each file, one open at a time; `-` is standard input."""
    for path in paths:
        if path == "-":
            yield "standard input", sys.stdin.buffer
        else:
            with open(path, "rb") as file:
                yield path, file
