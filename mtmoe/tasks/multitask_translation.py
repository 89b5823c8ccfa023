"""The fairseq task: many translation directions in one model."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask, register_task
from torch import Tensor

import mtmoe.criterions.moe_cross_entropy
import mtmoe.optim.deadline
import mtmoe.optim.fairseq_adam  # noqa: F401  (registers what `--user-dir` does not import)
from mtmoe.checkpoint.fairseq_file import pack_vocabulary
from mtmoe.checkpoint.sharded import complete_folder, remove_unused
from mtmoe.checkpoint.start import find_start, repair_last
from mtmoe.config import (
    CheckpointFormat,
    DecoderStart,
    EncoderTags,
    MultitaskConfig,
    TransformerConfig,
    check_router_languages,
)
from mtmoe.data.batching import source_tags
from mtmoe.data.mixture import TRANSLATION, Mixture, Stream
from mtmoe.data.sampler import Budget
from mtmoe.data.schedule import parse_table
from mtmoe.errors import ConfigError, DataError, uninterrupted
from mtmoe.fairseq_view import core_config, fairseq_view, one_sentence
from mtmoe.ops.routing import RouterKey
from mtmoe.parallel.mesh import is_first_rank, limit_waiting
from mtmoe.tasks.batch_iterator import AnyRanksIterator
from mtmoe.tasks.data_bin import (
    OneSplit,
    choose_directions,
    find_pairs,
    load_side,
    load_vocabulary,
)
from mtmoe.tasks.direction_dataset import DirectionData, DirectionDataset
from mtmoe.tasks.interactive import Sentences, WholeText, encode_lines
from mtmoe.tasks.programs import FULL_HELP, TASK_NAME, fit_program
from mtmoe.tasks.ranks import (
    check_optimizer,
    check_precision,
    check_saving,
    count_once,
    ending_without_memory,
    share_of_rank,
    start_mesh,
)
from mtmoe.tasks.start import READ, check_start
from mtmoe.tasks.stream_dataset import Dealing, StreamDataset, StreamIterator, make_iterator
from mtmoe.tasks.streams import check_equal_lengths, find_streams, load_stream

logger = logging.getLogger(__name__)
TRAIN_SPLIT = "train"
EPOCH_UPDATES = 1000  # of an epoch that samples streams
BORROWED = {
    "seed": "common.seed",
    "cpu": "common.cpu",
    "fp16": "common.fp16",
    "bf16": "common.bf16",
    "memory_efficient_fp16": "common.memory_efficient_fp16",
    "no_save_optimizer_state": "checkpoint.no_save_optimizer_state",
    "store_ema": "ema.store_ema",
    "update_freq": "optimization.update_freq",
    "post_process": "common_eval.post_process",
    "save_dir": "checkpoint.save_dir",
    "restore_file": "checkpoint.restore_file",
    "finetune_from_model": "checkpoint.finetune_from_model",
}
View = fairseq_view(MultitaskConfig, "MultitaskView", borrowed=BORROWED)
fit_program()


@register_task(TASK_NAME, dataclass=View)
class MultitaskTranslationTask(FairseqTask):
    """Translation between all pairs of a `data-bin` folder, in both directions.

    The encoder reads [tags, pieces, </s>], the decoder starts with the target language's tag.
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.config = core_config(MultitaskConfig, cfg)
        self.seed = int(cfg.seed or 1)
        self.mesh = start_mesh(self.config.mesh, is_on_cpu=bool(cfg.cpu))
        limit_waiting(self.config.collective_timeout)
        self.vocabulary = load_vocabulary(self.config.data)
        self.dictionary = Dictionary()
        for symbol in self.vocabulary.symbols[len(self.dictionary) :]:
            self.dictionary.add_symbol(symbol)
        if tuple(self.dictionary.symbols) != self.vocabulary.symbols:
            raise DataError(f"the dictionaries in {self.config.data} must hold each symbol once.")
        pairs = find_pairs(self.config.data)
        available = sorted("-".join(direction) for direction in pairs)
        self.directions = choose_directions(self.config, available)
        others = find_streams(self.config, self._split(TRAIN_SPLIT))
        self.streams = [*self.directions, *others]  # their numbers in batches and in the log
        self._iterator: StreamIterator | None = None  # of training on sampled streams
        self._names_pieces = False  # whether --bpe names a coder
        self._step = (-1, -1)  # (update, micro-batch) of the last training step
        self._choices: dict[str, Any] = {}  # (E,) by MoE layer, of the present update

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """Add the task's options; and the help that fairseq's own, which comes earlier, is not."""
        super().add_args(parser)
        parser.add_argument(FULL_HELP, action="help", help=argparse.SUPPRESS)

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> MultitaskTranslationTask:
        """Make the task, or end the program with one sentence."""
        with one_sentence():
            return cls(cfg)

    def load_dataset(self, split: str, combine: bool = False, **kwargs: Any) -> None:
        """Load all directions of a split; `valid_en-de` is one direction of `valid`."""
        with one_sentence():
            self.datasets[split] = self._make_dataset(split)

    def _make_dataset(self, split: str) -> DirectionDataset | StreamDataset:
        base, _, only = split.partition("_")
        if base == TRAIN_SPLIT and self.config.sampling.is_sampled:
            return self._make_streams(base)
        if ":" in only:
            others = self._split(base)
            stream = load_stream(self.config, self.vocabulary, others, only, self.seed)
            number = self.streams.index(only) if only in self.streams else 0
            return DirectionDataset([stream], [number], is_grouped=True)
        pairs = find_pairs(self.config.data, base)
        wanted = [only] if only else self.directions
        names = [d for d in wanted if tuple(d.split("-")) in pairs]
        if not names:
            raise DataError(
                f"{self.config.data} must hold the split {split!r}, but has no such files."
            )
        parts = self._load_directions(base, names, pairs)
        numbers = [self.directions.index(d) if d in self.directions else 0 for d in names]
        is_training = base == TRAIN_SPLIT
        temperature = self.config.sampling_temperature if is_training else 1.0
        return DirectionDataset(parts, numbers, temperature, self.seed, not is_training)

    def _make_streams(self, split: str) -> StreamDataset:
        pairs = find_pairs(self.config.data, split)
        is_translated = TRANSLATION in parse_table("task_mix", self.config.sampling.task_mix, "1")
        names = [d for d in self.directions if is_translated and tuple(d.split("-")) in pairs]
        parts = self._load_directions(split, names, pairs)
        others = self._split(split)
        for name in self.streams[len(self.directions) :]:
            parts.append(load_stream(self.config, self.vocabulary, others, name, self.seed))
            logger.info("%s %s: %d sentences", split, name, len(parts[-1].source))
        return StreamDataset(parts, [self.streams.index(part.name) for part in parts])

    def _split(self, split: str) -> OneSplit:
        return OneSplit(Path(self.config.data), split)

    def get_batch_iterator(self, dataset: Any, **settings: Any) -> Any:
        """The batches of an epoch: their number is a multiple of ranks x update_freq in training.

        The arguments are those of fairseq; what `StreamIterator` does not take has no use there.
        """
        settings |= share_of_rank(self.mesh, settings)
        epoch, num_shards = settings.get("epoch", 1), settings["num_shards"]
        frequencies = list(self.cfg.update_freq)
        update_freq = int(frequencies[min(epoch, len(frequencies)) - 1])
        if not isinstance(dataset, StreamDataset):
            dataset.batch_multiple = 1 if dataset.is_grouped else num_shards * update_freq
            with one_sentence():
                return AnyRanksIterator.of(super().get_batch_iterator(dataset, **settings))
        updates = self.config.sampling.epoch_updates or EPOCH_UPDATES
        dealing = Dealing(num_shards, settings["shard_id"], update_freq, updates)
        limits = settings.get("max_positions")
        lengths = limits if isinstance(limits, tuple) else (limits or 2**31 - 1,) * 2
        budget = Budget(settings.get("max_tokens"), settings.get("max_sentences"), lengths)
        with one_sentence():
            streams = [Stream(s.name, len(s.source)) for s in dataset.streams]
            mixture = Mixture(streams, self.config.sampling, self.config.sampling_temperature)
            self._iterator = make_iterator(
                dataset, mixture, budget, self.seed, dealing=dealing, epoch=epoch,
                num_workers=settings.get("num_workers", 0),
            )  # fmt: skip
        left_out = self._iterator.sampler.num_left_out
        if left_out:
            logger.warning("%d sentences are longer than %s and left out", left_out, lengths)
        return self._iterator

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """Log sums over ranks; in training on streams, each task's share of the sentences, too."""
        super().reduce_metrics(count_once(self.mesh, logging_outputs), criterion)
        if self._iterator is not None and criterion.training:
            for task, share in self._iterator.task_shares().items():
                metrics.log_scalar(f"share_{task}", share, weight=0, priority=510, round=4)

    def post_validate(self, model: Any, stats: dict[str, Any], agg: Any) -> None:
        """Keep the validation loss of each stream for the shares of the next epoch."""
        if self._iterator is not None:
            for name in self.streams:
                if f"nll_loss_{name}" in stats:
                    self._iterator.dataset.losses[name] = float(stats[f"nll_loss_{name}"])

    def _load_directions(
        self, split: str, directions: list[str], pairs: dict[tuple[str, str], str]
    ) -> list[DirectionData]:
        """The two directions of a pair share its sides."""
        load = functools.cache(functools.partial(load_side, self.config.data, split))
        parts = []
        for direction in directions:
            source, target = direction.split("-")
            pair = pairs[source, target]
            sides = load(pair, source), load(pair, target)
            check_equal_lengths(f"{split}.{pair}", *sides)
            logger.info("%s %s: %d sentences", split, direction, len(sides[0]))
            parts.append(self._direction_data(direction, *sides))
        return parts

    def _direction_data(self, direction: str, source: Any, target: Any) -> DirectionData:
        languages = direction.split("-")
        tags = source_tags(self.vocabulary, self.config.encoder_tags, *languages)
        return DirectionData(direction, source, target, tags, self.vocabulary.tag(languages[1]))

    def build_dataset_for_inference(
        self, src_tokens: list[Tensor], src_lengths: list[int], **kwargs: Any
    ) -> DirectionDataset:
        """The sentences of `fairseq-interactive`; the settings must name one direction."""
        with one_sentence():
            data = self._direction_data(self._only_direction(), Sentences(src_tokens), None)
            return DirectionDataset([data], [0], is_grouped=True)

    def _only_direction(self) -> str:
        if len(self.directions) != 1:
            raise ConfigError(
                f"one direction must be chosen, but there are {', '.join(self.directions)}. "
                "Give --source-lang and --target-lang."
            )
        return self.directions[0]

    def get_interactive_tokens_and_lengths(
        self, lines: list[str], encode_fn: Callable[[str], str]
    ) -> tuple[list[Tensor], list[int]]:
        """The ids of the lines of `fairseq-interactive`, plain text unless --bpe is given."""
        if self._names_pieces:
            tokens, lengths = super().get_interactive_tokens_and_lengths(lines, encode_fn)
            return tokens, lengths
        tokens = encode_lines(self.vocabulary, [encode_fn(line) for line in lines])
        return tokens, [len(ids) for ids in tokens]

    def build_bpe(self, args: Any) -> Any:
        """The coder that --bpe names, if any; with --remove-bpe, its output is whole already."""
        coder = super().build_bpe(args)
        self._names_pieces = coder is not None
        return WholeText(coder) if coder is not None and self.cfg.post_process else coder

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Make the model, or end the program with one sentence."""
        with one_sentence():
            config = core_config(TransformerConfig, cfg)
            check_router_languages(config, self.config.encoder_tags)
            check_saving(self.mesh, self.config, self.cfg)
            if not from_checkpoint:
                check_precision(self.mesh, self.cfg)
            model = super().build_model(cfg, from_checkpoint)
            if not from_checkpoint:
                self._prepare_start(model, config)
            return model

    def _prepare_start(self, model: Any, config: TransformerConfig) -> None:
        """Check the checkpoint that fairseq will load; tell the model where its own go."""
        if is_first_rank():
            repair_last(self.cfg.save_dir)
        if self.mesh.devices is not None:
            torch.distributed.barrier()
        options = (self.cfg.save_dir, self.cfg.restore_file, self.cfg.finetune_from_model)
        model.starts_from = find_start(*options)
        if model.starts_from is not None:
            check_start(model.starts_from, model, config, self.config)
        if self.config.checkpoint_format is CheckpointFormat.sharded:
            model.shards_in = Path(self.cfg.save_dir)

    def post_save(self, path: str, num_updates: int) -> None:
        """fairseq calls it on rank 0 after each save."""
        complete_folder(path)
        remove_unused(self.cfg.save_dir)

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
        number = micro * self.mesh.batch.size + self.mesh.batch.rank
        model.set_router_key(RouterKey.of(self.seed, update_num, number))
        with one_sentence(), uninterrupted(), ending_without_memory(self.mesh):
            check_optimizer(model, optimizer, self.config.checkpoint_format)
            loss, size, log = super().train_step(
                sample, model, criterion, optimizer, update_num, ignore_grad
            )
        self._count_choices(log, is_first=micro == 0)
        return loss, size, log

    def _count_choices(self, log: dict[str, Any], is_first: bool) -> None:
        """Add up the choices of each expert over the micro-batches of an update."""
        if is_first:
            self._choices = {}
        for key, value in log.items():
            name = key.removeprefix("moe ").removesuffix(" tokens")
            if key == f"moe {name} tokens":
                self._choices[name] = self._choices.get(name, 0) + value

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """Step, then balance the experts' choices over all ranks where the routers ask for it."""
        super().optimizer_step(optimizer, model, update_num)
        if model.transformer.config.router.bias_update_rate > 0:
            if self.mesh.batch.size > 1:
                for tokens in self._choices.values():
                    torch.distributed.all_reduce(tokens, group=self.mesh.batch.group)
            model.balance_choices(self._choices)

    def inference_step(
        self,
        generator: Any,
        models: Any,
        sample: Any,
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
    ) -> Any:
        """Generate; every hypothesis starts with the target language's tag.

        `fairseq-interactive` makes its batches by hand, without our key: it has one direction.
        """
        tag = sample.get("target_tag")
        if tag is None:
            tag = self.vocabulary.tag(self._only_direction().split("-")[1])
        with torch.no_grad():
            return generator.generate(
                models,
                sample,
                prefix_tokens=prefix_tokens,
                constraints=constraints,
                bos_token=tag,
            )

    def state_dict(self) -> dict[str, Any]:
        """What makes a checkpoint translate without the data folder."""
        packed = pack_vocabulary(self.vocabulary, self.directions)
        read = {name: str(getattr(self.config, name)) for name in READ}
        return packed | read

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put around sentences what the loaded model was trained with."""
        super().load_state_dict(state_dict)
        start = DecoderStart(state_dict.get("decoder_start", DecoderStart.tag))
        tags = EncoderTags(state_dict.get("encoder_tags", self.config.encoder_tags))
        self.config = dataclasses.replace(self.config, encoder_tags=tags, decoder_start=start)

    @property
    def source_dictionary(self) -> Dictionary:
        """The joint dictionary."""
        return self.dictionary

    @property
    def target_dictionary(self) -> Dictionary:
        """The joint dictionary."""
        return self.dictionary
