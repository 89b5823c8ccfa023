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
from mtmoe.modules.transformer import DecoderCache, Memory, Transformer


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
        memory, cache = model.encode(task.source), model.new_cache()
        beams = _begin(model, task, config)
        finished = Finished.of(beams.limit, config.beam, len(task.lead))
        while beams.sentence.numel():
            if stop is not None and stop.is_set():
                return []
            unread = task.unread(beams.tokens, cache.length == 0)
            states = model.decode(unread, memory, cache=cache).states
            candidates = _rank(model.project(states[:, -1]), beams, task, config)
            is_done = _finish(candidates, beams, finished, config)
            memory = _continue(candidates, beams, (~is_done).nonzero().squeeze(1), memory, cache)
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


def _rank(logits: Tensor, beams: Beams, task: Task, config: SearchConfig) -> Candidates:
    """The best continuations out of `logits`, (B * K, V), which is overwritten."""
    B, V = beams.sentence.shape[0], logits.shape[1]
    logits = logits.float()
    logits += beams.score.reshape(-1, 1) - logits.logsumexp(1, keepdim=True)
    scores = logits.view(B, -1, V)
    forbid(scores, beams.tokens, beams.sentence, task, config)
    if bool((at_limit := beams.at_limit).any()):
        is_text = torch.arange(V, device=logits.device) != EOS
        scores.masked_fill_(at_limit[:, None, None] & is_text, float("-inf"))
    flat = scores.view(B, -1)  # (B, K * V)
    wanted = 2 * config.beam
    score, index = flat.topk(min(wanted, flat.shape[1]), dim=1)
    missing = (0, wanted - score.shape[1])
    score, index = F.pad(score, missing, value=float("-inf")), F.pad(index, missing)
    return Candidates(score, index // V, index % V)


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


def _continue(
    candidates: Candidates, beams: Beams, keep: Tensor, memory: Memory, cache: DecoderCache
) -> Memory:
    """Extend the sentences `keep`, (B',) int64, by their K best candidates that do not end.

    Changes `beams` and `cache` in place; returns the memory of the sentences that remain.
    """
    B, K, length = beams.tokens.shape
    beam = candidates.token.shape[1] // 2
    goes_on_first = (candidates.token[keep] == EOS).int().argsort(dim=1, stable=True)[:, :beam]
    parent = candidates.parent[keep].gather(1, goes_on_first)  # (B', beam)
    added = candidates.token[keep].gather(1, goes_on_first).unsqueeze(2)
    total = candidates.score[keep].gather(1, goes_on_first).unsqueeze(2)
    rows = (keep.unsqueeze(1) * K + parent).flatten()
    shape = (*parent.shape, length)
    beams.tokens = torch.cat([beams.tokens.view(B * K, -1)[rows].view(shape), added], dim=2)
    beams.totals = torch.cat([beams.totals.view(B * K, -1)[rows].view(shape), total], dim=2)
    if keep.shape[0] == B and beam == 1 == K:
        return memory  # each hypothesis is its own parent
    cache.select_target(rows)
    if keep.shape[0] == B:
        return memory
    beams.sentence, beams.limit = beams.sentence[keep], beams.limit[keep]
    beams.num_finished = beams.num_finished[keep]
    cache.select_memory(keep)
    return memory.select(keep)
