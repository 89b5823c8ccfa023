"""How likely the model finds given translations."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mtmoe.data.batching import pad
from mtmoe.data.vocabulary import EOS
from mtmoe.inference.hypotheses import Hypothesis, Task, check_numbers
from mtmoe.modules.transformer import Transformer


def score_targets(
    model: Transformer, task: Task, targets: Sequence[Sequence[int]], length_penalty: float
) -> list[Hypothesis]:
    """The hypotheses that a search would return, had it found `targets`: N lists of ids.

    Raises:
        CheckpointError: the model's probabilities are not numbers.
    """
    with torch.inference_mode():
        read = pad(
            [
                [*task.lead, start, *ids]
                for start, ids in zip(task.start.tolist(), targets, strict=True)
            ]
        )
        wanted = pad([[*ids, EOS] for ids in targets]).to(task.source.device)
        states = model(task.source, read.to(task.source.device)).states[:, len(task.lead) :]
        logits = model.project(states).float()  # (N, S, V)
        steps = logits.gather(2, wanted.unsqueeze(2)).squeeze(2) - logits.logsumexp(2)
    found = []
    for ids, row in zip(targets, steps, strict=True):
        log_probs = row[: len(ids) + 1]
        check_numbers(log_probs)
        score = float(log_probs.sum()) / (len(ids) + 1 + len(task.lead)) ** length_penalty
        found.append(Hypothesis(list(ids), score, log_probs.tolist()))
    return found
