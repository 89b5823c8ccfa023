"""Outputs drawn at random, in the model's own probabilities."""

from __future__ import annotations

import threading
import zlib

import torch
from torch import Tensor

from mtmoe.data.vocabulary import EOS
from mtmoe.inference.constraints import forbid, length_limits
from mtmoe.inference.hypotheses import Finished, Hypothesis, Task
from mtmoe.inference.search_config import SearchConfig
from mtmoe.modules.transformer import Transformer
from mtmoe.ops.routing import mix_seed


def sample(
    model: Transformer, task: Task, config: SearchConfig, stop: threading.Event | None = None
) -> list[list[Hypothesis]]:
    """Draw K = `config.beam` outputs of each sentence, and return the `num_best` likeliest of them.

    A sentence's random numbers depend on the seed and on its own ids only, and so do its outputs.
    Scores are those of the model, whatever the temperature.

    Args:
        stop: as of `beam_search.search`.

    Raises:
        CheckpointError: the model's probabilities are not numbers.
    """
    with torch.inference_mode():
        memory, cache = model.encode(task.source), model.new_cache()
        limit = length_limits(model, task, config)
        finished, K = Finished.of(limit, config.beam, len(task.lead)), config.beam
        draws = _draws(task.source, model.padding, config, int(limit.max()) + 1)
        row = torch.arange(limit.shape[0], device=limit.device)
        tokens = task.start.view(-1, 1, 1).expand(-1, K, 1)
        totals = torch.zeros_like(tokens, dtype=torch.float32)
        while row.numel():
            if stop is not None and stop.is_set():
                return []
            length = tokens.shape[2]
            states = model.decode(task.unread(tokens, length == 1), memory, cache=cache).states
            logits = model.project(states[:, -1]).float().view(row.shape[0], K, -1)
            log_probs = logits.log_softmax(2)
            scores = log_probs.clone()
            forbid(scores, tokens, row, task, config)
            token = draw(scores, draws[row, :, length - 1], config).unsqueeze(2)  # (B, K, 1)
            token[limit[row] < length] = EOS
            was_finished = tokens[:, :, -1:] == EOS
            token[was_finished] = EOS
            step = log_probs.gather(2, token).masked_fill(was_finished, 0.0)
            totals = torch.cat([totals, totals[:, :, -1:] + step], 2)
            b, k = ((token == EOS) & ~was_finished).squeeze(2).nonzero(as_tuple=True)
            finished.add((row[b], k), tokens[b, k], totals[b, k], config.length_penalty)
            tokens = torch.cat([tokens, token], 2)
            keep = (tokens[:, :, -1] != EOS).any(1).nonzero().squeeze(1)
            if keep.shape[0] < row.shape[0]:
                row, tokens, totals = row[keep], tokens[keep], totals[keep]
                if keep.numel():
                    cache.select_sentences(keep)
                    memory = memory.select(keep)
    return finished.read_out(config.num_best)


def draw(scores: Tensor, uniform: Tensor, config: SearchConfig) -> Tensor:
    """Symbols (B, K) int64 by inverting the distribution function.

    Args:
        scores: (B, K, V) log probabilities; -inf where a symbol must not come.
        uniform: (B, K) in [0, 1).
    """
    probs, symbol = (scores / config.temperature).softmax(2).sort(stable=True, descending=True)
    if config.top_k:
        probs[:, :, config.top_k :] = 0
    before = probs.cumsum(2) - probs
    probs = probs.masked_fill(before >= config.top_p, 0)
    reached = probs.cumsum(2)
    wanted = (uniform.unsqueeze(2) * reached[:, :, -1:]).to(reached.dtype)
    last = (probs > 0).sum(2, keepdim=True) - 1
    place = torch.searchsorted(reached, wanted, right=True).minimum(last).clamp(min=0)
    found: Tensor = symbol.gather(2, place).squeeze(2)
    return found


def _draws(source: Tensor, padding: int, config: SearchConfig, length: int) -> Tensor:
    """(N, K, length) uniform numbers; each sentence's come from the seed and its own ids."""
    found = []
    for ids in source.tolist():
        text = repr([i for i in ids if i != padding]).encode()
        seed = mix_seed(config.seed, zlib.crc32(text))
        generator = torch.Generator().manual_seed(seed)
        # drawn position by position, so that a longer neighbour changes nothing
        found.append(torch.rand(length, config.beam, generator=generator).t())
    return torch.stack(found).to(source.device)
