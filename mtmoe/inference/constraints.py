"""What an output must not be: its length, its beginning, repetitions, symbols that are no text."""

from __future__ import annotations

import torch
from torch import Tensor

from mtmoe.data.vocabulary import EOS, PAD
from mtmoe.inference.hypotheses import Task
from mtmoe.inference.search_config import SearchConfig
from mtmoe.modules.transformer import Transformer

LIMIT_FACTOR, LIMIT_EXTRA = 2, 20  # output pieces at most: factor * source tokens + extra


def length_limits(model: Transformer, task: Task, config: SearchConfig) -> Tensor:
    """(N,) int64: the most pieces of each output; of its own source's length and prefix only.

    A prefix comes whole, and `LIMIT_FACTOR` and `LIMIT_EXTRA` do not count it.
    """
    length = (task.source != model.padding).sum(1)
    prefix = torch.zeros_like(length) if task.prefix is None else (task.prefix != PAD).sum(1)
    most = model.config.max_positions - 1 - len(task.lead)
    limit = (LIMIT_FACTOR * length + LIMIT_EXTRA + prefix).clamp(min=config.min_length)
    if config.max_length:
        limit = prefix.clamp(min=min(config.max_length, most))
    return limit.clamp(max=most)


def forbid(
    scores: Tensor, tokens: Tensor, sentence: Tensor, task: Task, config: SearchConfig
) -> None:
    """Set the scores of what must not come next to -inf; in place.

    Args:
        scores: (B, K, V) float32 of the next symbol.
        tokens: (B, K, S) int64 so far, the start first.
        sentence: (B,) int64 row of `task`.
    """
    position = tokens.shape[2] - 1  # of the next symbol in the output
    prefix = _next_of_prefix(task, sentence, position)
    kept = None if prefix is None else _take(scores, prefix)
    scores.index_fill_(2, task.forbidden, float("-inf"))
    if position < config.min_length:  # as fairseq's min_len
        scores[:, :, EOS] = float("-inf")
    if config.no_repeat_ngram:
        forbid_repetition(scores, tokens, config.no_repeat_ngram)
    if prefix is not None and kept is not None:
        forced = prefix != PAD  # (B,)
        scores[forced] = float("-inf")
        scores[forced] = scores[forced].scatter(2, _index(prefix, kept)[forced], kept[forced])


def _next_of_prefix(task: Task, sentence: Tensor, position: int) -> Tensor | None:
    """(B,) int64: the symbol that each output has to have at `position`, or PAD."""
    if task.prefix is None or position >= task.prefix.shape[1]:
        return None
    return task.prefix[sentence, position]


def _index(prefix: Tensor, scores: Tensor) -> Tensor:
    return prefix.view(-1, 1, 1).expand(-1, scores.shape[1], 1)


def _take(scores: Tensor, prefix: Tensor) -> Tensor:
    """(B, K, 1): the scores of the symbols `prefix`, (B,) int64."""
    return scores.gather(2, _index(prefix, scores))


def forbid_repetition(scores: Tensor, tokens: Tensor, size: int) -> None:
    """Set the scores of symbols that would end an n-gram of `tokens` a second time to -inf.

    Args:
        scores: (B, K, V) float32.
        tokens: (B, K, S) int64.
        size: n.
    """
    length = tokens.shape[2]
    if length < size:
        return
    grams = tokens.unfold(2, size, 1)  # (B, K, length - size + 1, size)
    last = tokens[:, :, length - size + 1 :].unsqueeze(2)  # (B, K, 1, size - 1)
    is_again = (grams[..., :-1] == last).all(-1)
    row, beam, place = is_again.nonzero(as_tuple=True)
    scores[row, beam, grams[row, beam, place, -1]] = float("-inf")
