"""How much each expert is used: counts to prune by and to draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtmoe.modules.router import Routing
from mtmoe.modules.transformer import Transformer


@dataclass(frozen=True)
class ExpertUse:
    """First choices of the tokens that were routed; N is the number of MoE layers.

    Where experts choose, what counts is each token that an expert took.

    Uses of different text add up with `+`.
    """

    layers: tuple[str, ...]  # N names, e.g. "encoder.1", in the order of `moe_layer_names`
    tokens: Tensor  # (N, E) int64 tokens whose first choice is the expert
    probability: Tensor  # (N, E) float64 sum of the probabilities of these choices

    @staticmethod
    def zero(layers: Sequence[str], num_experts: int) -> ExpertUse:
        """The use of no text."""
        shape = len(layers), num_experts
        tokens = torch.zeros(shape, dtype=torch.int64)
        return ExpertUse(tuple(layers), tokens, torch.zeros(shape, dtype=torch.float64))

    @staticmethod
    def of(layers: Sequence[str], routings: Sequence[Routing]) -> ExpertUse:
        """The use that one forward pass made; `routings` in the order of `layers`."""
        counted = [_count(routing) for routing in routings]
        return ExpertUse(
            tuple(layers),
            torch.stack([tokens for tokens, _ in counted]),
            torch.stack([probability for _, probability in counted]),
        )

    def __add__(self, other: ExpertUse) -> ExpertUse:
        assert self.layers == other.layers, "uses of one model have the same layers"
        tokens = self.tokens + other.tokens
        return ExpertUse(self.layers, tokens, self.probability + other.probability)

    def share(self) -> Tensor:
        """(N, E) float64 share of a layer's tokens; rows sum to 1, or are 0 without tokens."""
        return self.tokens / self.tokens.sum(1, keepdim=True).clamp(min=1).double()

    def mean_probability(self) -> Tensor:
        """(N, E) float64 mean probability of the expert where it was the first choice, else 0."""
        return self.probability / self.tokens.clamp(min=1)

    def importance(self) -> Tensor:
        """(N, E) float64 share * exp(mean probability) (Koishekenov et al. 2023, arXiv:2212.09811).

        An expert that many tokens choose, and choose with confidence, is worth keeping.
        """
        return self.share() * self.mean_probability().exp()


def _count(routing: Routing) -> tuple[Tensor, Tensor]:
    """(E,) int64 tokens and (E,) float64 summed probability of the first choices.

    Where experts choose, each token that an expert takes counts.
    """
    E, expert = routing.probs.shape[1], routing.expert
    is_counted = routing.slot >= 0
    if not routing.is_expert_choice:
        is_counted = torch.zeros_like(is_counted)
        is_counted[:, 0] = True
    chosen = expert[is_counted].cpu()
    probability = routing.probs.gather(1, expert)[is_counted].cpu().double()
    return torch.bincount(chosen, minlength=E), torch.bincount(chosen, probability, minlength=E)


def measure_use(model: Transformer, batches: Iterable[tuple[Tensor, Tensor]]) -> ExpertUse:
    """Run `model` over parallel text and count what its routers choose.

    The decoder reads the given target, not its own translation (teacher forcing). The model is in
    evaluation mode meanwhile, so nothing is dropped or random; its mode is then as before.

    Args:
        batches: (source, target) ids, each (B, S) int64 and padded, as `Transformer.forward` takes.
    """
    config = model.config
    use = ExpertUse.zero(config.moe_layer_names, config.router.num_experts)
    if not use.layers:
        return use
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for source, target in batches:
                use += ExpertUse.of(use.layers, model(source, target).routings)
    finally:
        model.train(was_training)
    return use
