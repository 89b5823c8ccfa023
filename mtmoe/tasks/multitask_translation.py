"""The fairseq task: many translation directions in one model."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.tasks import FairseqTask, register_task
from torch import Tensor

import mtmoe.criterions.moe_cross_entropy
import mtmoe.optim.deadline
import mtmoe.optim.fairseq_adam  # noqa: F401  (registers what `--user-dir` does not import)
from mtmoe.checkpoint.fairseq_file import pack_vocabulary
from mtmoe.config import DecoderStart, EncoderTags, MultitaskConfig, TransformerConfig
from mtmoe.data.batching import source_tags
from mtmoe.errors import ConfigError, DataError
from mtmoe.fairseq_view import core_config, fairseq_view, one_sentence
from mtmoe.ops.routing import RouterKey
from mtmoe.tasks.data_bin import choose_directions, find_pairs, load_side, load_vocabulary
from mtmoe.tasks.direction_dataset import DirectionData, DirectionDataset
from mtmoe.tasks.interactive import Sentences, WholeText, encode_lines
from mtmoe.tasks.programs import TASK_NAME, fit_program
from mtmoe.tasks.start import check_start, find_start

logger = logging.getLogger(__name__)
TRAIN_SPLIT = "train"
BORROWED = {
    "seed": "common.seed",
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
        self.vocabulary = load_vocabulary(self.config.data)
        self.dictionary = Dictionary()
        for symbol in self.vocabulary.symbols[len(self.dictionary) :]:
            self.dictionary.add_symbol(symbol)
        if tuple(self.dictionary.symbols) != self.vocabulary.symbols:
            raise DataError(f"the dictionaries in {self.config.data} must hold each symbol once.")
        pairs = find_pairs(self.config.data)
        available = sorted("-".join(direction) for direction in pairs)
        self.directions = choose_directions(self.config, available)
        self._names_pieces = False  # whether --bpe names a coder
        self._step = (-1, -1)  # (update, micro-batch) of the last training step
        self._choices: dict[str, Any] = {}  # (E,) by MoE layer, of the present update

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
            self._check_languages(core_config(TransformerConfig, cfg))
            model = super().build_model(cfg, from_checkpoint)
            if not from_checkpoint:
                options = (self.cfg.save_dir, self.cfg.restore_file, self.cfg.finetune_from_model)
                path = find_start(*options)
                if path is not None:
                    check_start(path, model)
            return model

    def _check_languages(self, config: TransformerConfig) -> None:
        """Refuse routers that read a language which the encoder's tags do not name."""
        wanted, tags = config.router.router_language, self.config.encoder_tags
        is_told = tags is EncoderTags.both or tags.value == wanted.value
        if config.router.reads_languages and config.moe_layer_names and not is_told:
            raise ConfigError(
                f"router_language must be {tags} with encoder_tags {tags}, but is {wanted}. "
                "Or set encoder_tags to both."
            )

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
        model.set_router_key(RouterKey.of(self.seed, update_num, number))
        with one_sentence():
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
            if _num_ranks() > 1:
                for tokens in self._choices.values():
                    torch.distributed.all_reduce(tokens)
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
        return {**packed, "encoder_tags": self.config.encoder_tags.value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the tags in front of sources that the loaded model was trained with."""
        super().load_state_dict(state_dict)
        with one_sentence():
            if state_dict.get("decoder_start", DecoderStart.tag) != DecoderStart.tag:
                raise ConfigError(
                    "decoder_start of the checkpoint must be tag for fairseq's programs, but is "
                    f"{state_dict['decoder_start']}. Use mtmoe translate."
                )
        if "encoder_tags" in state_dict:
            tags = EncoderTags(state_dict["encoder_tags"])
            self.config = dataclasses.replace(self.config, encoder_tags=tags)

    @property
    def source_dictionary(self) -> Dictionary:
        """The joint dictionary."""
        return self.dictionary

    @property
    def target_dictionary(self) -> Dictionary:
        """The joint dictionary."""
        return self.dictionary


def _if_distributed(function: Callable[[], int], alone: int) -> int:
    dist = torch.distributed
    return function() if dist.is_available() and dist.is_initialized() else alone


def _rank() -> int:
    return _if_distributed(torch.distributed.get_rank, 0)


def _num_ranks() -> int:
    return _if_distributed(torch.distributed.get_world_size, 1)
