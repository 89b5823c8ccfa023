"""`Translator`: a checkpoint that translates lines of text."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from mtmoe.checkpoint.fairseq_file import Checkpoint, load_checkpoint
from mtmoe.data.batching import batch_by_tokens, pad, source_tags, start_ids, tag_source
from mtmoe.data.vocabulary import BOS, PAD, UNK
from mtmoe.errors import ConfigError, DataError
from mtmoe.inference.beam_search import Hypothesis, SearchRules, search
from mtmoe.inference.search_config import SearchConfig
from mtmoe.inference.segments import join_parts, split_pieces
from mtmoe.inference.text import clean_line
from mtmoe.inference.workers import map_on_cores

MIN_POSITIONS = 16
SMALL_BATCH = 500  # tokens that are not worth spreading over cores
SHORT_SENTENCE = 16  # shorter ones count as this long in a batch: their output may be longer

Part = tuple[int, ...]  # pieces of a sentence, or of a part of one that is too long


class Translator:
    """A model, its vocabulary and its directions; a translation depends on its own line only.

    Raises:
        ConfigError: the model takes too few positions for any sentence.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: str = "cpu", num_threads: int | None = None
    ) -> None:
        self.vocabulary = checkpoint.vocabulary
        self.encoder_tags = checkpoint.encoder_tags
        self.decoder_start = checkpoint.decoder_start
        self.directions = checkpoint.directions
        self.device = find_device(device)
        on_cpu = self.device.type == "cpu"
        self.num_threads = (num_threads or torch.get_num_threads()) if on_cpu else 1
        self.max_positions = checkpoint.config.max_positions
        if self.max_positions < MIN_POSITIONS:
            raise ConfigError(
                f"max_positions of the checkpoint must be at least {MIN_POSITIONS} to translate, "
                f"but is {self.max_positions}. Train with longer sentences."
            )
        self.model = checkpoint.build_model().to(self.device)
        forbidden = [BOS, PAD, UNK, *self.vocabulary.untranslatable]
        self._forbidden = torch.tensor(forbidden, device=self.device)

    @classmethod
    def load(
        cls, path: str | Path, device: str = "cpu", num_threads: int | None = None
    ) -> Translator:
        """Read a checkpoint.

        Args:
            device: cpu, cuda, or auto: cuda where there is one.
            num_threads: CPU threads, each with a batch of its own; None: as many as PyTorch's.

        Raises:
            CheckpointError: the file is missing, damaged or no checkpoint of ours.
            ConfigError: the device is not there.
        """
        find_device(device)
        return cls(load_checkpoint(path), device, num_threads)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that the checkpoint has tags for."""
        return self.vocabulary.languages

    def translate(
        self,
        lines: Sequence[str],
        source_lang: str,
        target_lang: str,
        beam: int = 4,
        length_penalty: float = 1.0,
        max_tokens: int = 4000,
    ) -> list[str]:
        """Translate each line; empty lines stay empty, none is cut, none becomes two.

        A line that is too long for the model is translated in parts, which are joined.

        Args:
            beam: hypotheses kept per sentence; 1: greedy.
            length_penalty: see `SearchConfig`.
            max_tokens: source tokens of a batch, padding included; changes speed and memory only.

        Returns:
            As many lines, in the same order.

        Raises:
            ConfigError: an unknown language, twice the same one, or a wrong option.
            DataError: `lines` is one str.
        """
        if isinstance(lines, str):  # a sequence of lines too, of one character each
            raise DataError("lines must be a list of lines, but are one str. Write [line].")
        config = SearchConfig(beam, length_penalty, max_tokens)
        self.check_direction(source_lang, target_lang)
        prefix = source_tags(self.vocabulary, self.encoder_tags, source_lang, target_lang)
        parts = self._split(lines, len(prefix))
        distinct = dict.fromkeys(part for line in parts for part in line)
        found = self._translate_parts(list(distinct), prefix, target_lang, config)
        return [join_parts([found[part] for part in line], target_lang) for line in parts]

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

    def _check_language(self, side: str, language: str) -> None:
        if language not in self.languages:
            raise ConfigError(
                f"{side} language must be one of {', '.join(self.languages)}, but is {language!r}. "
                "Choose one that the checkpoint knows."
            )

    def _split(self, lines: Sequence[str], num_tags: int) -> list[list[Part]]:
        """Each line as parts that the model can take, with room for output twice as long."""
        limit = self.max_positions // 2 - num_tags - 1
        encoded = self.vocabulary.encode([clean_line(line) for line in lines])
        split = [split_pieces(ids, self.vocabulary.symbols, limit) for ids in encoded]
        return [[tuple(part) for part in line] for line in split]

    def _translate_parts(
        self, parts: Sequence[Part], prefix: Sequence[int], target_lang: str, config: SearchConfig
    ) -> dict[Part, str]:
        start = start_ids(self.vocabulary, self.decoder_start, target_lang)
        rules = SearchRules(start, self._forbidden, config.beam, config.length_penalty)
        sources = [tag_source(prefix, part) for part in parts]
        lengths = [max(len(source), SHORT_SENTENCE) for source in sources]
        fair_share = max(SMALL_BATCH, sum(lengths) // self.num_threads + 1)
        batches = list(batch_by_tokens(lengths, min(config.max_tokens, fair_share)))

        def search_batch(batch: list[int], stop: threading.Event) -> list[Hypothesis]:
            source = pad([sources[n] for n in batch]).to(self.device)
            return search(self.model, source, rules, stop)

        results = map_on_cores(search_batch, batches, self.num_threads)
        texts = self.vocabulary.decode([h.ids for hypotheses in results for h in hypotheses])
        translated = (parts[n] for batch in batches for n in batch)
        return dict(zip(translated, map(clean_line, texts), strict=True))


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
