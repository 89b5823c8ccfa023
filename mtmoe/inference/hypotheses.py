"""What a search is given, and what it has found."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtmoe.errors import CheckpointError


@dataclass(frozen=True)
class Task:
    """N sentences to translate, and what their outputs may be."""

    source: Tensor  # (N, S) int64 with tags and end, padded on the right
    start: Tensor  # (N,) int64 what the decoder reads first: the target language's tag
    forbidden: Tensor  # (M,) int64 ids that are never emitted
    prefix: Tensor | None = None  # (N, S') int64 that outputs begin with, PAD after its end
    lead: tuple[int, ...] = ()  # ids that stand before `start`, in models of other programs

    def unread(self, tokens: Tensor, is_first: bool) -> Tensor:
        """(B * K, 1) the last of `tokens`, (B, K, S), which the decoder reads next.

        At first `lead` stands before it.
        """
        last = tokens[:, :, -1].reshape(-1, 1)
        if not is_first or not self.lead:
            return last
        lead = torch.tensor(self.lead, device=last.device)
        return torch.cat([lead.expand(last.shape[0], -1), last], 1)


@dataclass(frozen=True)
class Hypothesis:
    """A finished translation."""

    ids: list[int]  # without start and end
    score: float  # sum of log probabilities / (pieces + 1 for the end) ** length_penalty
    log_probs: list[float]  # of each piece, and of the end


def check_numbers(scores: Tensor) -> None:
    """Refuse a model whose probabilities are no numbers.

    Raises:
        CheckpointError: one of `scores` is NaN or infinite.
    """
    if not bool(scores.isfinite().all()):
        raise CheckpointError(
            "the model must give probabilities, but gives no number. "
            "Its weights are damaged, or its training diverged: take an earlier checkpoint."
        )


@dataclass(frozen=True)
class Finished:
    """The first K finished hypotheses of each of the N sentences of a batch."""

    score: Tensor  # (N, K) float32; -inf: none yet
    tokens: Tensor  # (N, K, S_max) int64, the start first
    totals: Tensor  # (N, K, S_max + 1) float32 sums of log probabilities, 0 at the start
    length: Tensor  # (N, K) int64 tokens, the start included
    num_lead: int = 0  # ids before the start, which count in scores as fairseq's and others do

    @staticmethod
    def of(limit: Tensor, beam: int, num_lead: int = 0) -> Finished:
        """Nothing, with room for outputs of `limit`, (N,) int64, pieces."""
        N = limit.shape[0]
        longest = int(limit.max()) + 1 if N else 1
        return Finished(
            score=torch.full((N, beam), float("-inf"), device=limit.device),
            tokens=limit.new_zeros(N, beam, longest),
            totals=torch.zeros(N, beam, longest + 1, device=limit.device),
            length=limit.new_zeros(N, beam),
            num_lead=num_lead,
        )

    def add(
        self, where: tuple[Tensor, Tensor], tokens: Tensor, totals: Tensor, penalty: float
    ) -> None:
        """Keep hypotheses at the (sentence, place) of `where`, (R,) int64 each.

        Args:
            tokens: (R, S) int64, the start first.
            totals: (R, S + 1) float32, the end's last.
        """
        length = tokens.shape[1]  # start and pieces, or pieces and end
        row, place = where
        self.score[row, place] = totals[:, -1] / (length + self.num_lead) ** penalty
        self.tokens[row, place, :length] = tokens
        self.totals[row, place, : length + 1] = totals
        self.length[row, place] = length

    def read_out(self, num_best: int) -> list[list[Hypothesis]]:
        """The best of each sentence, best first.

        Raises:
            CheckpointError: a sentence has none: the probabilities are no numbers.
        """
        scores, order = self.score.sort(dim=1, descending=True, stable=True)
        check_numbers(scores[:, 0])
        log_probs = self.totals.diff(dim=2)
        found = []
        for row, (best, places) in enumerate(zip(scores.tolist(), order.tolist(), strict=True)):
            kept = [(s, p) for s, p in zip(best, places, strict=True) if s > float("-inf")]
            found.append([self._read(row, p, s, log_probs) for s, p in kept[:num_best]])
        return found

    def _read(self, row: int, place: int, score: float, log_probs: Tensor) -> Hypothesis:
        length = int(self.length[row, place])
        ids = self.tokens[row, place, 1:length].tolist()
        return Hypothesis(ids, score, log_probs[row, place, :length].tolist())
