"""Streams of training beside translation: which there are, and what encoder and decoder read."""

from __future__ import annotations

import zlib
from collections.abc import Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtmoe.config import MultitaskConfig, TaskTokens
from mtmoe.data.batching import source_tags
from mtmoe.data.mixture import TRANSLATION
from mtmoe.data.mmap_text import MmapText
from mtmoe.data.noise import Filler, Noise, ends_sentence
from mtmoe.data.schedule import parse_schedule, parse_table
from mtmoe.data.vocabulary import EOS, MASK, UNK, Vocabulary, task_token
from mtmoe.errors import ConfigError, DataError
from mtmoe.tasks.data_bin import OneSplit
from mtmoe.tasks.direction_dataset import DirectionData

DENOISING, MODELLING, TITLE = "denoising", "modelling", "title"
TASKS = (TRANSLATION, DENOISING, MODELLING, TITLE)
FINAL_UPDATE = 2**31  # outside of training, noise is that of the end


def find_streams(config: MultitaskConfig, split: OneSplit) -> list[str]:
    """The streams of the tasks in the mix, translation left out, in alphabetical order.

    Raises:
        ConfigError: the mix names an unknown task.
    """
    wanted = parse_table("task_mix", config.sampling.task_mix, "1")
    for task in wanted:
        if task not in TASKS:
            raise ConfigError(f"task_mix must be among {', '.join(TASKS)}, but is {task!r}.")
    names = [f"{TITLE}:{direction}" for direction in split.titles] if TITLE in wanted else []
    for task in {DENOISING, MODELLING} & set(wanted):
        names += [f"{task}:{language}" for language in split.texts]
    return sorted(names)


class NoisedText:
    """A text as denoising reads it."""

    def __init__(self, text: MmapText, noise: Noise) -> None:
        self.text, self.noise = text, noise
        self.sizes = text.sizes  # at most: noise makes no sentence longer

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, row: int) -> Tensor:
        return self.at(row, 0, FINAL_UPDATE)

    def at(self, row: int, epoch: int, update: int) -> Tensor:
        """The noised sentence, (n,) int64, EOS included."""
        ids = self.text[row].numpy()[:-1]
        noised = self.noise.apply(ids, epoch, row, update)[: len(ids)]
        return torch.from_numpy(np.append(noised, EOS))


class NoText:
    """The source of language modelling: nothing but the end."""

    def __init__(self, size: int) -> None:
        self.sizes = np.ones(size, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, row: int) -> Tensor:
        return torch.tensor([EOS])


def load_stream(
    config: MultitaskConfig, vocabulary: Vocabulary, split: OneSplit, name: str, seed: int
) -> DirectionData:
    """A stream of another task than translation.

    Raises:
        DataError: a file is missing or damaged, or the vocabulary lacks a symbol.
    """
    task, _, languages = name.partition(":")
    source_lang, target_lang = (languages.split("-") * 2)[:2]
    tags = source_tags(vocabulary, config.encoder_tags, source_lang, target_lang)
    if config.task_tokens is TaskTokens.others:
        tags.append(vocabulary.control(task_token(task)))
    source: Any
    if languages not in (split.titles if task == TITLE else split.texts):
        raise DataError(
            f"{split.folder} must hold text for {name} in the split {split.split}, but has none. "
            "See docs/multitask.md for the names of files."
        )
    if task == TITLE:
        source, target = map(MmapText, split.titles[languages])
        check_equal_lengths(f"{name} in {split.split}", source, target)
    else:
        target = MmapText(split.texts[languages])
        source = NoText(len(target))
    if task == DENOISING:
        source = NoisedText(target, make_noise(config, vocabulary, seed, name))
    return DirectionData(name, source, target, tags, vocabulary.tag(target_lang))


def check_equal_lengths(name: str, source: Sized, target: Sized) -> None:
    """Refuse sides of unequal numbers of sentences.

    Raises:
        DataError: names the files.
    """
    if len(source) != len(target):
        raise DataError(
            f"both sides of {name} must have as many sentences, but have {len(source)} and "
            f"{len(target)}. Binarise them again."
        )


def make_noise(config: MultitaskConfig, vocabulary: Vocabulary, seed: int, name: str) -> Noise:
    """The noise of one stream.

    Raises:
        ConfigError: `mask_ratio` is not a share or a schedule of shares.
        DataError: the vocabulary has no mask.
    """
    ratio = parse_schedule("mask_ratio", config.noise.mask_ratio)
    if max(value for _, value in ratio.points) > 1:
        raise ConfigError(f"mask_ratio must be at most 1, but is {config.noise.mask_ratio!r}.")
    symbols = vocabulary.symbols
    num_pieces = len(symbols) - len(vocabulary.untranslatable) - (UNK + 1)
    filler = Filler(vocabulary.control(MASK), UNK + 1, num_pieces, config.noise.random_ratio)
    salted = (seed << 32) + zlib.crc32(name.encode())
    return Noise(config.noise, ratio, filler, ends_sentence(symbols), salted)
