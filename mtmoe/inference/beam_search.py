"""Beam search over the one Transformer, all sentences and hypotheses of a batch at once.

The search is fairseq's (`SequenceGenerator`): each step ranks the 2K best continuations of a
sentence's K hypotheses; those among the first K that end are finished, the first K that do not end
go on; a sentence is done when K hypotheses have finished, or at its length limit. Unlike there, the
limit is the sentence's own, whatever else is in the batch, and symbols that are no text are never
emitted.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mtmoe.data.vocabulary import EOS
from mtmoe.inference.constraints import forbid, length_limits
from mtmoe.inference.hypotheses import Finished, Hypothesis, Task
from mtmoe.inference.search_config import SearchConfig
from mtmoe.inference.top import best_of, log_sums
from mtmoe.modules.transformer import DecoderCache, Memory, Transformer

ROWS_OF_SOFTMAX = 32  # hypotheses whose probabilities are ranked together
SOFTMAXES_OF_PRODUCT = 4  # products of fewer rows are slower
MAX_SLOTS = 16  # wider beams move their caches instead: each hypothesis would look at too many


@dataclass
class Beams:
    """The hypotheses of the B sentences that are still searched; all have the same length S."""

    sentence: Tensor  # (B,) int64 row of the batch
    limit: Tensor  # (B,) int64 most pieces of an output
    num_finished: Tensor  # (B,) int64
    tokens: Tensor  # (B, K, S) int64, the start first; K = 1 before the first step
    totals: Tensor  # (B, K, S) float32 sums of log probabilities so far; -inf: no hypothesis

    @property
    def score(self) -> Tensor:
        """(B, K) float32 sum of log probabilities."""
        return self.totals[:, :, -1]

    @property
    def at_limit(self) -> Tensor:
        """(B,) bool: the next symbol has to be the end."""
        return self.limit < self.tokens.shape[2]


@dataclass(frozen=True)
class Candidates:
    """The 2K best continuations of each sentence, best first."""

    score: Tensor  # (B, 2K) float32 sum of log probabilities
    parent: Tensor  # (B, 2K) int64 hypothesis that is continued
    token: Tensor  # (B, 2K) int64 its next symbol


def search(
    model: Transformer, task: Task, config: SearchConfig, stop: threading.Event | None = None
) -> list[list[Hypothesis]]:
    """The best translations of each sentence of `task`.

    Args:
        stop: once set, by another thread, the search ends at once and without a result.

    Returns:
        For each of the N sentences, in their order, 1 to `num_best` hypotheses, best first; nothing
        if stopped. Exact ties go as `torch.topk` sorts them.

    Raises:
        CheckpointError: the model's probabilities are not numbers.
    """
    with torch.inference_mode():
        memory = model.encode(task.source)
        cache = model.new_cache(config.beam if config.beam <= MAX_SLOTS else 1)
        beams = _begin(model, task, config)
        finished = Finished.of(beams.limit, config.beam, len(task.lead))
        while beams.sentence.numel():
            if stop is not None and stop.is_set():
                return []
            unread = task.unread(beams.tokens, cache.length == 0)
            states = model.decode(unread, memory, cache=cache).states
            candidates = _rank(model, states[:, -1], beams, task, config)
            is_done = _finish(candidates, beams, finished, config)
            _continue(candidates, beams, cache)
            memory = _drop(is_done, beams, memory, cache)
    return finished.read_out(config.num_best)


def _begin(model: Transformer, task: Task, config: SearchConfig) -> Beams:
    N, device = task.source.shape[0], task.source.device
    return Beams(
        sentence=torch.arange(N, device=device),
        limit=length_limits(model, task, config),
        num_finished=torch.zeros(N, dtype=torch.int64, device=device),
        tokens=task.start.view(N, 1, 1),
        totals=torch.zeros(N, 1, 1, device=device),
    )


def _rank(
    model: Transformer, states: Tensor, beams: Beams, task: Task, config: SearchConfig
) -> Candidates:
    """The best continuations after `states`, (B * K, D).

    A few rows at a time: their probabilities then stay in the processor's cache, and the logits of
    a large batch are never all in memory.
    """
    B, K, _ = beams.tokens.shape
    size, ranked = max(1, ROWS_OF_SOFTMAX // K), []
    for first in range(0, B, size * SOFTMAXES_OF_PRODUCT):
        last = min(first + size * SOFTMAXES_OF_PRODUCT, B)
        logits = model.project(states[first * K : last * K]).view(last - first, K, -1)
        for n, part in enumerate(torch.split(logits, size)):
            start = first + n * size
            rows = slice(start, start + part.shape[0])
            ranked.append(_rank_part(part, beams, rows, task, config))
    score, parent, token = (torch.cat(found) for found in zip(*ranked, strict=True))
    missing = (0, 2 * config.beam - score.shape[1])
    score = F.pad(score, missing, value=float("-inf"))
    token = F.pad(token, missing).masked_fill(~(score > float("-inf")), 0)
    return Candidates(score, F.pad(parent, missing), token)


def _rank_part(
    logits: Tensor, beams: Beams, rows: slice, task: Task, config: SearchConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Score, hypothesis and symbol of the sentences `rows`, whose logits are (B', K, V)."""
    scores = logits.float()
    before = beams.score[rows] - log_sums(scores)
    forbid(scores, beams.tokens[rows], beams.sentence[rows], task, config)
    for row in beams.at_limit[rows].nonzero().flatten().tolist():
        end = scores[row, :, EOS].clone()
        scores[row] = float("-inf")
        scores[row, :, EOS] = end
    return best_of(scores, before, 2 * config.beam)


def _finish(
    candidates: Candidates, beams: Beams, finished: Finished, config: SearchConfig
) -> Tensor:
    """Take note of the hypotheses that end; returns which sentences are done, (B,) bool."""
    score = candidates.score[:, : config.beam]
    is_end = (candidates.token[:, : config.beam] == EOS) & (score > float("-inf"))
    place = beams.num_finished.unsqueeze(1) + is_end.cumsum(1) - 1  # (B, K)
    row, rank = (is_end & (place < config.beam)).nonzero(as_tuple=True)
    if row.numel():
        parent, total = candidates.parent[row, rank], score[row, rank]
        totals = torch.cat([beams.totals[row, parent], total.unsqueeze(1)], 1)
        where = beams.sentence[row], place[row, rank]
        finished.add(where, beams.tokens[row, parent], totals, config.length_penalty)
        beams.num_finished += is_end.sum(1)
    return (beams.num_finished >= config.beam) | beams.at_limit


def _continue(candidates: Candidates, beams: Beams, cache: DecoderCache) -> None:
    """Extend each sentence's hypotheses by its K best candidates that do not end."""
    beam = candidates.token.shape[1] // 2
    goes_on_first = (candidates.token == EOS).int().argsort(dim=1, stable=True)[:, :beam]
    added = candidates.token.gather(1, goes_on_first).unsqueeze(2)  # (B, beam, 1)
    total = candidates.score.gather(1, goes_on_first).unsqueeze(2)
    if beam == 1:  # each hypothesis is its own parent
        beams.tokens = torch.cat([beams.tokens, added], 2)
        beams.totals = torch.cat([beams.totals, total], 2)
        return
    parent = candidates.parent.gather(1, goes_on_first)
    index = parent.unsqueeze(2).expand(-1, -1, beams.tokens.shape[2])
    beams.tokens = torch.cat([beams.tokens.gather(1, index), added], 2)
    beams.totals = torch.cat([beams.totals.gather(1, index), total], 2)
    cache.follow(parent)


def _drop(is_done: Tensor, beams: Beams, memory: Memory, cache: DecoderCache) -> Memory:
    """Take finished sentences out of `beams` and `cache`, and of the memory that is returned.

    All that remains is copied, which costs more than to compute a few sentences in vain: they wait
    until they are an eighth of the batch.
    """
    B, num_done = is_done.shape[0], int(is_done.sum())
    if num_done * 8 < B or num_done == 0:
        return memory
    keep = (~is_done).nonzero().squeeze(1)
    beams.sentence, beams.limit = beams.sentence[keep], beams.limit[keep]
    beams.num_finished = beams.num_finished[keep]
    beams.tokens, beams.totals = beams.tokens[keep], beams.totals[keep]
    if not keep.shape[0]:
        return memory
    cache.select_sentences(keep)
    return memory.select(keep)
