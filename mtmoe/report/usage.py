"""Expert use by direction and by language, measured on parallel text."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from mtmoe.checkpoint.fairseq_file import Checkpoint
from mtmoe.data.batching import batch_by_tokens, lead_ids, pad, source_tags, tag_source
from mtmoe.modules.transformer import Transformer
from mtmoe.modules.usage import ExpertUse, measure_use
from mtmoe.report.parallel_text import ParallelText

MAX_TOKENS = 4000  # of a batch, source and target counted apart
log = logging.getLogger(__name__)


def measure_text(checkpoint: Checkpoint, model: Transformer, text: ParallelText) -> ExpertUse:
    """The use of the experts over one direction of parallel text.

    Raises:
        DataError: the model does not know one of the languages.
    """
    return measure_use(model, make_batches(checkpoint, text))


def make_batches(checkpoint: Checkpoint, text: ParallelText) -> Iterator[tuple[Tensor, Tensor]]:
    """Padded ids as in training: tags, pieces, end on the source side; tag, pieces on the target.

    Sentences that are longer than the model's `max_positions` are left out, with a warning.
    """
    vocabulary = checkpoint.vocabulary
    tags = source_tags(vocabulary, checkpoint.encoder_tags, text.source_lang, text.target_lang)
    start = (*lead_ids(checkpoint.decoder_start), vocabulary.tag(text.target_lang))
    sources = [tag_source(tags, ids) for ids in vocabulary.encode(text.source)]
    targets = [[*start, *ids] for ids in vocabulary.encode(text.target)]
    lengths = [max(map(len, pair)) for pair in zip(sources, targets, strict=True)]
    fitting = [n for n, length in enumerate(lengths) if length <= checkpoint.config.max_positions]
    if len(fitting) < len(lengths):
        log.warning("%s: %d sentences are too long", text.direction, len(lengths) - len(fitting))
    for batch in batch_by_tokens([lengths[n] for n in fitting], MAX_TOKENS):
        rows = [fitting[n] for n in batch]
        yield pad([sources[n] for n in rows]), pad([targets[n] for n in rows])


def use_by_language(uses: Mapping[str, ExpertUse]) -> dict[str, dict[str, list[float]]]:
    """Share of tokens per expert: encoder layers by source language, decoder layers by target.

    Args:
        uses: by direction.

    Returns:
        {layer: {language: E shares}}; the languages of a layer are sorted.
    """
    shares: dict[str, dict[str, list[float]]] = {}
    for side, name in enumerate(("encoder", "decoder")):
        sums: dict[str, ExpertUse] = {}
        for direction, use in sorted(uses.items(), key=lambda item: item[0].split("-")[side]):
            language = direction.split("-")[side]
            sums[language] = sums[language] + use if language in sums else use
        for language, use in sums.items():
            for n, layer in enumerate(use.layers):
                if layer.startswith(name):
                    row = use.share()[n, : use.sizes[n]]
                    shares.setdefault(layer, {})[language] = row.tolist()
    return shares


def describe_use(uses: Mapping[str, ExpertUse]) -> dict[str, Any]:
    """All numbers for a JSON file.

    Returns:
        {direction: {layer: {"tokens": E counts, "mean_probability": E, "importance": E}}}
    """
    return {direction: _describe(use) for direction, use in uses.items()}


def _describe(use: ExpertUse) -> dict[str, dict[str, list[float]]]:
    columns = {
        "tokens": use.tokens,
        "mean_probability": use.mean_probability(),
        "importance": use.importance(),
    }
    return {
        layer: {
            name: [round(v, 6) for v in column[n, :size].tolist()]
            for name, column in columns.items()
        }
        for n, (layer, size) in enumerate(zip(use.layers, use.sizes, strict=True))
    }
