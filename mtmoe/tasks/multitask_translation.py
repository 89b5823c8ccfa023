"""The fairseq task: many translation directions in one model."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.tasks import FairseqTask, register_task
from torch import Tensor

import mtmoe.criterions.moe_cross_entropy
import mtmoe.optim.deadline
import mtmoe.optim.fairseq_adam  # noqa: F401  (registers what `--user-dir` does not import)
from mtmoe.checkpoint.fairseq_file import pack_vocabulary
from mtmoe.config import MultitaskConfig
from mtmoe.data.batching import source_tags
from mtmoe.errors import DataError
from mtmoe.fairseq_view import core_config, fairseq_view, one_sentence
from mtmoe.ops.routing import mix_seed
from mtmoe.tasks.data_bin import choose_directions, find_pairs, load_side, load_vocabulary
from mtmoe.tasks.direction_dataset import DirectionData, DirectionDataset

logger = logging.getLogger(__name__)
TASK_NAME = "multitask_translation"
TRAIN_SPLIT = "train"
View = fairseq_view(MultitaskConfig, "MultitaskView", borrowed={"seed": "common.seed"})


def choose_task_by_default() -> None:
    """Let `fairseq-generate --user-dir mtmoe` use this task without `--task`.

    These programs take the task from the command line, not from the checkpoint, and their default
    is `translation`, which knows no language tags. Only their command line without `--task` is
    completed; nothing else is touched.
    """
    program = Path(sys.argv[0]).name if sys.argv else ""
    if program in ("fairseq-generate", "fairseq-interactive", "fairseq-validate") and not any(
        word == "--task" or word.startswith("--task=") for word in sys.argv
    ):
        sys.argv.append(f"--task={TASK_NAME}")


choose_task_by_default()


@register_task(TASK_NAME, dataclass=View)
class MultitaskTranslationTask(FairseqTask):
    """Translation between all pairs of a `data-bin` folder, in both directions.

    The encoder reads [tags, pieces, </s>], the decoder starts with the target language's tag.
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.config = core_config(MultitaskConfig, cfg)
        self.seed = int(cfg.seed or 1)
        self.vocabulary = load_vocabulary(self.config.data)
        self.dictionary = Dictionary()
        for symbol in self.vocabulary.symbols[len(self.dictionary) :]:
            self.dictionary.add_symbol(symbol)
        if tuple(self.dictionary.symbols) != self.vocabulary.symbols:
            raise DataError(f"the dictionaries in {self.config.data} must hold each symbol once.")
        pairs = find_pairs(self.config.data)
        available = sorted("-".join(direction) for direction in pairs)
        self.directions = choose_directions(self.config, available)
        self._step = (-1, -1)  # (update, micro-batch) of the last training step

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> MultitaskTranslationTask:
        """Make the task, or end the program with one sentence."""
        with one_sentence():
            return cls(cfg)

    def load_dataset(self, split: str, combine: bool = False, **kwargs: Any) -> None:
        """Load all directions of a split; `valid_en-de` is one direction of `valid`."""
        with one_sentence():
            self.datasets[split] = self._make_dataset(split)

    def _make_dataset(self, split: str) -> DirectionDataset:
        base, _, only = split.partition("_")
        pairs = find_pairs(self.config.data, base)
        wanted = [only] if only else self.directions
        names = [d for d in wanted if tuple(d.split("-")) in pairs]
        if not names:
            raise DataError(
                f"{self.config.data} must hold the split {split!r}, but has no such files."
            )
        parts = [self._load_direction(base, d, pairs) for d in names]
        numbers = [self.directions.index(d) if d in self.directions else 0 for d in names]
        is_training = base == TRAIN_SPLIT
        temperature = self.config.sampling_temperature if is_training else 1.0
        return DirectionDataset(parts, numbers, temperature, self.seed, not is_training)

    def _load_direction(
        self, split: str, direction: str, pairs: dict[tuple[str, str], str]
    ) -> DirectionData:
        source, target = direction.split("-")
        pair, folder = pairs[source, target], self.config.data
        sides = [load_side(folder, split, pair, language) for language in (source, target)]
        if len(sides[0]) != len(sides[1]):
            raise DataError(
                f"both sides of {split}.{pair} must have as many sentences, but have "
                f"{len(sides[0])} ({source}) and {len(sides[1])} ({target}). Binarise them again."
            )
        logger.info("%s %s: %d sentences", split, direction, len(sides[0]))
        return self._direction_data(direction, *sides)

    def _direction_data(self, direction: str, source: Any, target: Any) -> DirectionData:
        languages = direction.split("-")
        tags = source_tags(self.vocabulary, self.config.encoder_tags, *languages)
        return DirectionData(direction, source, target, tags, self.vocabulary.tag(languages[1]))

    def build_dataset_for_inference(
        self, src_tokens: list[Tensor], src_lengths: list[int], **kwargs: Any
    ) -> DirectionDataset:
        """The sentences of `fairseq-interactive`; the settings must name one direction."""
        with one_sentence():
            if len(self.directions) != 1:
                known = ", ".join(self.directions)
                raise DataError(
                    f"one direction must be chosen, but there are {known}. "
                    "Give --source-lang and --target-lang."
                )
            data = self._direction_data(self.directions[0], _Sentences(src_tokens), None)
            return DirectionDataset([data], [0], is_grouped=True)

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Make the model, or end the program with one sentence."""
        with one_sentence():
            return super().build_model(cfg, from_checkpoint)

    def train_step(
        self,
        sample: Any,
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> Any:
        """One micro-batch, with the key of its routers' random numbers.

        The key is (seed, update, number of the micro-batch over all ranks): P ranks draw what one
        process draws in P micro-batches.
        """
        micro = self._step[1] + 1 if self._step[0] == update_num else 0
        self._step = (update_num, micro)
        number = micro * _num_ranks() + _rank()
        model.set_router_seed(mix_seed(self.seed, update_num, number))
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def inference_step(
        self,
        generator: Any,
        models: Any,
        sample: Any,
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
    ) -> Any:
        """Generate; every hypothesis starts with the target language's tag."""
        with torch.no_grad():
            return generator.generate(
                models,
                sample,
                prefix_tokens=prefix_tokens,
                constraints=constraints,
                bos_token=sample["target_tag"],
            )

    def state_dict(self) -> dict[str, Any]:
        """What makes a checkpoint translate without the data folder."""
        return pack_vocabulary(self.vocabulary, self.directions)

    @property
    def source_dictionary(self) -> Dictionary:
        """The joint dictionary."""
        return self.dictionary

    @property
    def target_dictionary(self) -> Dictionary:
        """The joint dictionary."""
        return self.dictionary


class _Sentences:
    """A list of id tensors in the form of an indexed dataset."""

    def __init__(self, sentences: list[Tensor]) -> None:
        self.sentences = sentences
        self.sizes = torch.tensor([len(s) for s in sentences]).numpy()

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> Tensor:
        return self.sentences[index].long()


def _if_distributed(function: Callable[[], int], alone: int) -> int:
    dist = torch.distributed
    return function() if dist.is_available() and dist.is_initialized() else alone


def _rank() -> int:
    return _if_distributed(torch.distributed.get_rank, 0)


def _num_ranks() -> int:
    return _if_distributed(torch.distributed.get_world_size, 1)
