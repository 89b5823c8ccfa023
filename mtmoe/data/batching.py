"""Sentences to padded tensors, and the tags that tell the languages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mtmoe.config import DecoderStart, EncoderTags
from mtmoe.data.vocabulary import EOS, PAD, Vocabulary


def source_tags(
    vocabulary: Vocabulary, tags: EncoderTags, source_lang: str, target_lang: str
) -> list[int]:
    """The ids that stand before a source sentence."""
    source, target = vocabulary.tag(source_lang), vocabulary.tag(target_lang)
    return {
        EncoderTags.source: [source],
        EncoderTags.target: [target],
        EncoderTags.both: [source, target],
    }[tags]


def lead_ids(start: DecoderStart) -> tuple[int, ...]:
    """The ids that the decoder reads before the target language's tag."""
    return (EOS,) if start is DecoderStart.end_and_tag else ()


def with_lead(lead: Sequence[int], ids: Tensor) -> Tensor:
    """(B, S) int64 ids of the decoder, with the ids of `lead` before each row."""
    if not lead:
        return ids
    return torch.cat([ids.new_tensor(lead).expand(ids.shape[0], -1), ids], 1)


def tag_source(prefix: Sequence[int], ids: Sequence[int]) -> list[int]:
    """What the encoder reads: tags, pieces, end."""
    return [*prefix, *ids, EOS]


def pad(sentences: Sequence[Sequence[int]]) -> Tensor:
    """(B, S) int64, padded on the right."""
    longest = max((len(s) for s in sentences), default=0)
    batch = torch.full((len(sentences), longest), PAD, dtype=torch.int64)
    for row, sentence in enumerate(sentences):
        batch[row, : len(sentence)] = torch.tensor(sentence, dtype=torch.int64)
    return batch


def batch_by_tokens(
    lengths: Sequence[int], max_tokens: int, max_sentences: int | None = None
) -> Iterator[list[int]]:
    """Indices in batches of like lengths: sentences * longest is at most `max_tokens`.

    Longest first, so that memory runs out at once or never. A sentence longer than `max_tokens`
    is a batch of its own.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        is_full = bool(batch) and lengths[batch[0]] * (len(batch) + 1) > max_tokens
        if is_full or (max_sentences is not None and len(batch) == max_sentences):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
