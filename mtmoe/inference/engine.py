"""`Translator`: a checkpoint that translates lines of text."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mtmoe.checkpoint.fairseq_file import Checkpoint, load_checkpoint
from mtmoe.data.batching import lead_ids, pad, source_tags, tag_source
from mtmoe.data.vocabulary import BOS, PAD, UNK
from mtmoe.errors import ConfigError, DataError
from mtmoe.inference.beam_search import search
from mtmoe.inference.budgets import check_expert_memory, check_threads, limit_threads
from mtmoe.inference.expert_share import ALL_EXPERTS
from mtmoe.inference.hypotheses import Hypothesis, Task
from mtmoe.inference.processes import Processes, can_fork
from mtmoe.inference.ranks import Ranks
from mtmoe.inference.requests import (
    EMPTY,
    END,
    LongLines,
    Request,
    Translation,
    join_split,
)
from mtmoe.inference.sampling import sample
from mtmoe.inference.scoring import score_targets
from mtmoe.inference.search_config import SearchConfig
from mtmoe.inference.segments import split_pieces
from mtmoe.inference.shares import share_out
from mtmoe.inference.text import clean_line
from mtmoe.inference.weights import build_network, check_dtype, check_expert_dtype
from mtmoe.inference.workers import map_on_cores

MIN_POSITIONS = 16

log = logging.getLogger(__name__)


class Part(NamedTuple):
    """What the model reads of a line, or of a part of one that is too long."""

    source: tuple[int, ...]  # with tags and end
    start: int  # the target language's tag
    prefix: tuple[int, ...]  # that the output begins with


class Job(NamedTuple):
    """A batch, and what is wanted of it."""

    parts: list[Part]
    config: SearchConfig
    targets: list[list[int]] | None = None  # to be scored, without end; None: search


class Translator:
    """A model, its vocabulary and its directions; a translation depends on its own line only.

    Raises:
        ConfigError: the model takes too few positions for any sentence.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str = "cpu",
        dtype: str = "float32",
        threads: int | None = None,
        expert_memory: float | None = None,
        ranks: Ranks | None = None,
        expert_dtype: str | None = None,
    ) -> None:
        self.vocabulary = checkpoint.vocabulary
        self.encoder_tags = checkpoint.encoder_tags
        self.decoder_start = checkpoint.decoder_start
        self.directions = checkpoint.directions
        self.device = find_device(device)
        on_cpu, self.ranks = self.device.type == "cpu", ranks
        self.num_threads = (
            limit_threads(threads or torch.get_num_threads()) if on_cpu and not ranks else 1
        )
        self.max_positions = checkpoint.config.max_positions
        if self.max_positions < MIN_POSITIONS:
            raise ConfigError(
                f"max_positions of the checkpoint must be at least {MIN_POSITIONS} to translate, "
                f"but is {self.max_positions}. Train with longer sentences."
            )
        share = ALL_EXPERTS
        if ranks is not None:
            self.device = ranks.place(self.device)
            share = ranks.share_experts(checkpoint.config.num_experts_by_layer)
        self.model = build_network(
            checkpoint, self.device, dtype, expert_memory, share, expert_dtype
        )
        tags = [self.vocabulary.tag(language) for language in self.languages]
        self._forbidden = torch.tensor([BOS, PAD, UNK, *tags], device=self.device)
        self._processes: Processes[Job, list[list[Hypothesis]]] | None = None
        if can_fork() and self.num_threads > 1 and expert_memory is None:
            self._processes = Processes(self._run, self.num_threads)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str = "cpu",
        dtype: str = "float32",
        threads: int | None = None,
        expert_memory: float | None = None,
        ranks: Ranks | None = None,
        expert_dtype: str | None = None,
    ) -> Translator:
        """Read a checkpoint.

        Args:
            device: cpu, cuda, or auto: cuda where there is one.
            dtype: of the weights and of products with them: float32, bfloat16, or, on a CPU, int8
                (a scale for each output, and for each row that is multiplied).
            threads: CPU cores, each with a batch of its own: processes that are forked when first
                needed, or threads where that cannot be, or `expert_memory` is to be shared; None:
                as many as PyTorch's. The weights must not change afterwards.
            expert_memory: GiB for experts on a CPU; each is then read from the file, which must not
                change meanwhile, when a token first comes to it, and goes when there is no room.
                None: all are read at once.
            ranks: of `join_ranks`, under torchrun, each with one thread. All ranks read the same
                checkpoint; rank 0 translates, and the others must `serve` it.
            expert_dtype: int4 keeps the experts' weights in 4 bits, on a CPU, whatever `dtype` is
                for the others (see `ops.int4_linear`); None: they are of `dtype`, too.

        Raises:
            CheckpointError: the file is missing, damaged or no checkpoint of ours.
            ConfigError: the device is not there, or has no such dtype; there are no experts for
                `expert_dtype`; or `threads` or `expert_memory` is no such number.
            LayoutError: the model has fewer experts than `ranks` share out.
        """
        check_dtype(dtype, find_device(device))
        check_expert_dtype(expert_dtype, find_device(device))
        check_threads("threads", threads)
        check_expert_memory("expert_memory", expert_memory)
        checkpoint = load_checkpoint(path, is_mapped=True)
        return cls(checkpoint, device, dtype, threads, expert_memory, ranks, expert_dtype)

    def serve(self) -> None:
        """On another rank than 0: run the batches that rank 0 hands out, until it ends."""
        assert self.ranks is not None, "there is one process without ranks"
        self.ranks.serve(self._run)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that the checkpoint has tags for."""
        return self.vocabulary.languages

    def translate(
        self, lines: Sequence[str], source_lang: str, target_lang: str, **options: Any
    ) -> list[str]:
        """Translate each line; empty lines stay empty, none is cut, none becomes two.

        A line that is too long for the model is translated in parts, which are joined.

        Args:
            options: fields of `SearchConfig`.

        Returns:
            As many lines, in the same order.

        Raises:
            ConfigError: an unknown language, twice the same one, or a wrong option.
            DataError: `lines` is one str, or one of them is none.
        """
        if isinstance(lines, str):  # a sequence of lines too, of one character each
            raise DataError("lines must be a list of lines, but are one str. Write [line].")
        config = SearchConfig(**options)
        self.check_direction(source_lang, target_lang)
        requests = [
            Request(line, source_lang, target_lang, name=f"line {number}")
            for number, line in enumerate(lines, 1)
        ]
        return [found[0].text for found in self.translate_requests(requests, config)]

    def translate_requests(
        self,
        requests: Sequence[Request],
        config: SearchConfig,
        long_lines: LongLines = "split",
    ) -> list[list[Translation]]:
        """The best translations of each request, 1 to `config.num_best`, best first.

        Directions may differ: a batch mixes them. The k-th translation of a line in parts is made
        of the k-th ones of its parts.

        Raises:
            ConfigError: an unknown language, twice the same one, or `min_length` is too large.
            DataError: a line is too long, if `long_lines` is error; or a prefix is.
        """
        if config.min_length >= self.max_positions:
            raise ConfigError(
                f"min_length must be below max_positions of the checkpoint "
                f"({self.max_positions}), but is {config.min_length}. Give a smaller one."
            )
        lines = self._parts(requests, long_lines)
        distinct = dict.fromkeys(part for line in lines for part in line)
        found = self._search_parts(list(distinct), config)
        return [
            join_split([found[part] for part in line], request.target_lang, config.length_penalty)
            for line, request in zip(lines, requests, strict=True)
        ]

    def score(
        self, requests: Sequence[Request], targets: Sequence[str], config: SearchConfig
    ) -> list[Translation]:
        """How likely the model finds `targets` as translations of `requests`.

        Raises:
            ConfigError: an unknown language, or twice the same one.
            DataError: a line or its translation is too long for the model, or there are not as
                many translations as lines.
        """
        if isinstance(targets, str) or len(targets) != len(requests):
            raise DataError(
                f"targets must be a list of as many translations as there are lines "
                f"({len(requests)}), but is {targets!r:.50}. Give one for each."
            )
        lines = self._parts(requests, "error")
        ids = self.vocabulary.encode([clean_line(target) for target in targets])
        for request, target in zip(requests, ids, strict=True):
            if len(target) >= self.max_positions:
                raise DataError(
                    f"the translation must have at most {self.max_positions - 1} pieces, but that "
                    f"of {request.name} has {len(target)}. Split it."
                )
        rows = [row for row, line in enumerate(lines) if line and ids[row]]
        parts = [lines[row][0] for row in rows]
        wanted = [ids[row] for row in rows]
        lengths = [max(len(p.source), len(w) + 1) for p, w in zip(parts, wanted, strict=True)]
        batches = share_out(lengths, config, self._num_workers)
        jobs = [Job([parts[n] for n in b], config, [wanted[n] for n in b]) for b in batches]
        scored = (self._read(found[0]) for batch in self._run_all(jobs) for found in batch)
        read = dict(zip((rows[n] for batch in batches for n in batch), scored, strict=True))
        return [
            replace(read[row], text=target) if row in read else replace(EMPTY, text=target)
            for row, target in enumerate(targets)
        ]

    def read_source(self, request: Request, long_lines: LongLines = "split") -> list[Part]:
        """What the model reads of one request: no part if it is empty, several if it is long.

        Raises:
            ConfigError, DataError: as `translate_requests`.
        """
        return self._parts([request], long_lines)[0]

    def check_direction(self, source_lang: str, target_lang: str) -> None:
        """Refuse languages that the checkpoint does not know, and twice the same one.

        Raises:
            ConfigError: names the language and the known ones.
        """
        self._check_language("source", source_lang)
        self._check_language("target", target_lang)
        if source_lang == target_lang:
            raise ConfigError(
                f"target language must differ from the source language, but both are "
                f"{target_lang!r}. Choose another one."
            )

    def default_source(self, target_lang: str) -> str:
        """The source language if none is named: the only one trained for this target, or English.

        Raises:
            ConfigError: there are several and none is English, or the target is unknown.
        """
        self._check_language("target", target_lang)
        sources = {d.split("-")[0] for d in self.directions if d.endswith(f"-{target_lang}")}
        if len(sources) == 1:
            return sources.pop()
        if "en" in sources:
            return "en"
        known = ", ".join(sorted(sources or set(self.languages) - {target_lang}))
        raise ConfigError(
            f"source language must be named to translate into {target_lang!r}, but is not. "
            f"Give one of {known}."
        )

    @property
    def _num_workers(self) -> int:
        """How many run batches side by side."""
        return self.num_threads if self.ranks is None else self.ranks.num_groups

    def _check_language(self, side: str, language: str) -> None:
        if language not in self.languages:
            raise ConfigError(
                f"{side} language must be one of {', '.join(self.languages)}, but is {language!r}. "
                "Choose one that the checkpoint knows."
            )

    def _parts(self, requests: Sequence[Request], long_lines: LongLines) -> list[list[Part]]:
        """Each line as parts that the model can take, with room for output twice as long."""
        encoded = self.vocabulary.encode([clean_line(request.text) for request in requests])
        prefixes = self.vocabulary.encode([clean_line(request.prefix) for request in requests])
        found, room = [], self.max_positions - len(lead_ids(self.decoder_start))
        for request, ids, prefix in zip(requests, encoded, prefixes, strict=True):
            self.check_direction(request.source_lang, request.target_lang)
            if len(prefix) >= room:
                raise DataError(
                    f"the prefix must have fewer than {room} pieces, but that of "
                    f"{request.name} has {len(prefix)}. Give a shorter one."
                )
            found.append(self._parts_of(request, ids, tuple(prefix), long_lines))
        return found

    def _parts_of(
        self, request: Request, ids: list[int], prefix: tuple[int, ...], long_lines: LongLines
    ) -> list[Part]:
        languages = request.source_lang, request.target_lang
        tags = source_tags(self.vocabulary, self.encoder_tags, *languages)
        limit = self.max_positions // 2 - len(tags) - 1
        split = split_pieces(ids, self.vocabulary.symbols, limit)
        if len(split) > 1:
            if long_lines == "error":
                raise DataError(
                    f"a line must have at most {limit} pieces, but {request.name} has {len(ids)}. "
                    "Split it."
                )
            is_cut = long_lines == "truncate"
            split = [ids[:limit]] if is_cut else split
            done = f"cut after {limit}" if is_cut else f"translated in {len(split)} parts"
            log.warning("%s is long: %d pieces, %s.", request.name, len(ids), done)
        start = self.vocabulary.tag(request.target_lang)
        sources = [tuple(tag_source(tags, part)) for part in split]
        return [Part(source, start, () if n else prefix) for n, source in enumerate(sources)]

    def _task(self, parts: Sequence[Part]) -> Task:
        has_prefix = any(part.prefix for part in parts)
        return Task(
            source=pad([part.source for part in parts]).to(self.device),
            start=torch.tensor([part.start for part in parts], device=self.device),
            forbidden=self._forbidden,
            lead=lead_ids(self.decoder_start),
            prefix=pad([part.prefix for part in parts]).to(self.device) if has_prefix else None,
        )

    def _search_parts(
        self, parts: Sequence[Part], config: SearchConfig
    ) -> dict[Part, list[Translation]]:
        batches = share_out([len(part.source) for part in parts], config, self._num_workers)
        results = self._run_all([Job([parts[n] for n in batch], config) for batch in batches])
        searched = (parts[n] for batch in batches for n in batch)
        found = (hypotheses for batch in results for hypotheses in batch)
        return {
            part: [self._read(hypothesis) for hypothesis in hypotheses]
            for part, hypotheses in zip(searched, found, strict=True)
        }

    def _run_all(self, jobs: Sequence[Job]) -> list[list[list[Hypothesis]]]:
        if self.ranks is not None:
            return self.ranks.map(self._run, jobs)
        if self._processes is None or len(jobs) == 1:
            return map_on_cores(self._run, jobs, self.num_threads)
        return self._processes.map(jobs)

    def _run(self, job: Job, stop: threading.Event | None = None) -> list[list[Hypothesis]]:
        """The hypotheses of each sentence of `job`, best first; nothing once `stop` is set."""
        task = self._task(job.parts)
        if job.targets is not None:
            scored = score_targets(self.model, task, job.targets, job.config.length_penalty)
            return [[hypothesis] for hypothesis in scored]
        find = sample if job.config.sampling else search
        return find(self.model, task, job.config, stop)

    def _read(self, hypothesis: Hypothesis) -> Translation:
        text = clean_line(self.vocabulary.decode([hypothesis.ids])[0])
        pieces = [self.vocabulary.symbols[i] for i in hypothesis.ids]
        return Translation(text, hypothesis.score, (*pieces, END), tuple(hypothesis.log_probs))


def find_device(name: str) -> torch.device:
    """The device called `name`: cpu, cuda, or auto.

    Raises:
        ConfigError: another name, or no GPU is there.
    """
    if name not in ("cpu", "cuda", "auto"):
        raise ConfigError(f"device must be cpu, cuda or auto, but is {name!r}. Choose one.")
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise ConfigError("device must be there, but PyTorch finds no cuda. Use cpu or auto.")
    return torch.device("cuda" if name != "cpu" and has_gpu else "cpu")
