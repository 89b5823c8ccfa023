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
from mtmoe.errors import CheckpointError
from mtmoe.modules.transformer import DecoderCache, Memory, Transformer

LIMIT_FACTOR, LIMIT_EXTRA = 2, 20  # output pieces at most: factor * source tokens + extra


@dataclass(frozen=True)
class SearchRules:
    """What a search is given beside the model and the sentences."""

    start: tuple[int, ...]  # ids that the decoder reads first; the target language's tag ends them
    forbidden: Tensor  # (N,) int64 ids that are never emitted
    beam: int = 4  # K
    length_penalty: float = 1.0


@dataclass(frozen=True)
class Hypothesis:
    """A finished translation."""

    ids: list[int]  # without start and end
    score: float  # sum of log probabilities / (start and pieces) ** length_penalty


@dataclass
class Beams:
    """The hypotheses of the B sentences that are still searched; all have the same length S."""

    sentence: Tensor  # (B,) int64 row of the batch
    limit: Tensor  # (B,) int64 most tokens of a hypothesis, less one; the start included
    num_finished: Tensor  # (B,) int64
    tokens: Tensor  # (B, K, S) int64, the start first; K = 1 before the first step
    score: Tensor  # (B, K) float32 sum of log probabilities; -inf: no hypothesis

    @property
    def at_limit(self) -> Tensor:
        """(B,) bool: the next symbol has to be the end."""
        return self.limit < self.tokens.shape[2]


@dataclass
class BestFinished:
    """The best finished hypothesis of each of the N sentences of the batch."""

    score: Tensor  # (N,) float32; -inf: none yet
    tokens: Tensor  # (N, S_max) int64, the start first
    length: Tensor  # (N,) int64 tokens of it, the start included


@dataclass(frozen=True)
class Candidates:
    """The 2K best continuations of each sentence, best first."""

    score: Tensor  # (B, 2K) float32 sum of log probabilities
    parent: Tensor  # (B, 2K) int64 hypothesis that is continued
    token: Tensor  # (B, 2K) int64 its next symbol


def search(
    model: Transformer, source: Tensor, rules: SearchRules, stop: threading.Event | None = None
) -> list[Hypothesis]:
    """The best translation of each sentence of `source`.

    Args:
        source: (N, S) int64 with tags and end, padded on the right.
        stop: once set, by another thread, the search ends at once and without a result.

    Returns:
        N hypotheses, in the order of `source`; none if stopped. Exact ties
        go as `torch.topk` sorts them.

    Raises:
        CheckpointError: the model's probabilities are not numbers.
    """
    with torch.inference_mode():
        memory, cache = model.encode(source), model.new_cache()
        beams = _begin(model, source, rules)
        best = _nothing_finished(beams)
        while beams.sentence.numel():
            if stop is not None and stop.is_set():
                return []
            unseen = beams.tokens[:, :, cache.length :].flatten(0, 1)
            states = model.decode(unseen, memory, cache=cache).states
            candidates = _rank(model.project(states[:, -1]), beams, rules)
            is_done = _finish(candidates, beams, best, rules)
            memory = _continue(candidates, beams, (~is_done).nonzero().squeeze(1), memory, cache)
    return _read_out(best, len(rules.start))


def _begin(model: Transformer, source: Tensor, rules: SearchRules) -> Beams:
    N, device = source.shape[0], source.device
    length = (source != model.padding).sum(1)
    start = torch.tensor(rules.start, device=device)
    most = model.config.max_positions - len(start)
    limit = (LIMIT_FACTOR * length + LIMIT_EXTRA).clamp(max=most) + len(start) - 1
    return Beams(
        sentence=torch.arange(N, device=device),
        limit=limit,
        num_finished=torch.zeros(N, dtype=torch.int64, device=device),
        tokens=start.expand(N, 1, -1),
        score=torch.zeros(N, 1, device=device),
    )


def _nothing_finished(beams: Beams) -> BestFinished:
    N = beams.sentence.shape[0]
    longest = int(beams.limit.max()) + 1 if N else 1
    tokens = beams.tokens.new_zeros(N, longest)
    return BestFinished(beams.score.new_full((N,), float("-inf")), tokens, tokens.new_zeros(N))


def _rank(logits: Tensor, beams: Beams, rules: SearchRules) -> Candidates:
    """The best continuations out of `logits`, (B * K, V), which is overwritten."""
    B, V = beams.sentence.shape[0], logits.shape[1]
    logits = logits.float()
    logits += beams.score.view(-1, 1) - logits.logsumexp(1, keepdim=True)
    logits.index_fill_(1, rules.forbidden, float("-inf"))
    if beams.tokens.shape[2] == len(rules.start):
        logits[:, EOS] = float("-inf")  # as fairseq's min_len 1: no sentence becomes nothing
    scores = logits.view(B, -1, V)
    if bool((at_limit := beams.at_limit).any()):
        is_text = torch.arange(V, device=logits.device) != EOS
        scores.masked_fill_(at_limit[:, None, None] & is_text, float("-inf"))
    flat = scores.view(B, -1)  # (B, K * V)
    wanted = 2 * rules.beam
    score, index = flat.topk(min(wanted, flat.shape[1]), dim=1)
    missing = (0, wanted - score.shape[1])
    score, index = F.pad(score, missing, value=float("-inf")), F.pad(index, missing)
    return Candidates(score, index // V, index % V)


def _finish(candidates: Candidates, beams: Beams, best: BestFinished, rules: SearchRules) -> Tensor:
    """Take note of the hypotheses that end; returns which sentences are done, (B,) bool.

    All that end in one step are equally long, so only the first of them can be the best.
    """
    score = candidates.score[:, : rules.beam]
    is_end = (candidates.token[:, : rules.beam] == EOS) & (score > float("-inf"))
    length = beams.tokens.shape[2]  # start and pieces, or pieces and end
    first = is_end.int().argmax(1, keepdim=True)  # (B, 1)
    normalised = score.gather(1, first).squeeze(1) / length**rules.length_penalty
    is_better = is_end.any(1) & (normalised > best.score[beams.sentence])
    rows = beams.sentence[is_better]
    parent = candidates.parent.gather(1, first).squeeze(1)[is_better]
    best.score[rows] = normalised[is_better]
    best.tokens[rows, :length] = beams.tokens[is_better, parent]
    best.length[rows] = length
    beams.num_finished += is_end.sum(1)
    return (beams.num_finished >= rules.beam) | beams.at_limit


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
    token = candidates.token[keep].gather(1, goes_on_first)
    rows = (keep.unsqueeze(1) * K + parent).flatten()
    history = beams.tokens.view(B * K, length)[rows].view(*parent.shape, length)
    beams.tokens = torch.cat([history, token.unsqueeze(2)], dim=2)
    beams.score = candidates.score[keep].gather(1, goes_on_first)
    for layer in cache.layers:
        layer.target.select(rows)
    if keep.shape[0] == B:
        return memory
    beams.sentence, beams.limit = beams.sentence[keep], beams.limit[keep]
    beams.num_finished = beams.num_finished[keep]
    for layer in cache.layers:
        layer.memory.select(keep)
    return memory.select(keep)


def _read_out(best: BestFinished, start_length: int) -> list[Hypothesis]:
    scores, lengths, tokens = best.score.tolist(), best.length.tolist(), best.tokens.tolist()
    if float("-inf") in scores:
        raise CheckpointError(
            "the model must give probabilities, but gives no number. "
            "Its weights are damaged, or its training diverged: take an earlier checkpoint."
        )
    parts = zip(tokens, lengths, scores, strict=True)
    return [Hypothesis(ids[start_length:length], score) for ids, length, score in parts]
