"""How much each expert is used: counts to prune by and to draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mtmoe.modules.router import Routing
from mtmoe.modules.transformer import Transformer
from mtmoe.ops.routing import SKIPPED


@dataclass(frozen=True)
class ExpertUse:
    """First choices of the tokens that were routed, and all choices.

    N is the number of MoE layers, E that of the experts of the largest one; layers with fewer have
    0 in the rest of their row. Where experts choose, each token that an expert took is a first
    choice. Uses of different text add up with `+`.
    """

    layers: tuple[str, ...]  # N names, e.g. "encoder.1", in the order of `moe_layer_names`
    sizes: tuple[int, ...]  # N numbers of experts
    tokens: Tensor  # (N, E) int64 tokens whose first choice is the expert
    probability: Tensor  # (N, E) float64 sum of the probabilities of these choices
    choices: Tensor  # (N, E) int64 tokens that chose the expert, first or later

    @staticmethod
    def zero(layers: Sequence[str], sizes: Sequence[int]) -> ExpertUse:
        """The use of no text."""
        shape = len(layers), max(sizes, default=0)
        counts = torch.zeros(shape, dtype=torch.int64)
        return ExpertUse(tuple(layers), tuple(sizes), counts, counts.double(), counts)

    @staticmethod
    def of(layers: Sequence[str], routings: Sequence[Routing]) -> ExpertUse:
        """The use that one forward pass made; `routings` in the order of `layers`."""
        sizes = tuple(routing.probs.shape[1] for routing in routings)
        counted = zip(*(_count(routing) for routing in routings), strict=True)
        return ExpertUse(tuple(layers), sizes, *(stack_rows(rows) for rows in counted))

    def __add__(self, other: ExpertUse) -> ExpertUse:
        assert (self.layers, self.sizes) == (other.layers, other.sizes), "uses of one model"
        return ExpertUse(
            self.layers,
            self.sizes,
            self.tokens + other.tokens,
            self.probability + other.probability,
            self.choices + other.choices,
        )

    def is_measured(self) -> bool:
        """Whether tokens were routed in every layer."""
        return bool(self.choices.sum(1).all())

    def share(self) -> Tensor:
        """(N, E) float64 share of a layer's tokens; rows sum to 1, or are 0 without tokens."""
        return self.tokens / self.tokens.sum(1, keepdim=True).clamp(min=1).double()

    def load(self) -> Tensor:
        """(N, E) float64 share of a layer's choices, first or later; else as `share`."""
        return self.choices / self.choices.sum(1, keepdim=True).clamp(min=1).double()

    def mean_probability(self) -> Tensor:
        """(N, E) float64 mean probability of the expert where it was the first choice, else 0."""
        return self.probability / self.tokens.clamp(min=1)

    def importance(self) -> Tensor:
        """(N, E) float64 share * exp(mean probability) (Koishekenov et al. 2023, arXiv:2212.09811).

        An expert that many tokens choose, and choose with confidence, is worth keeping.
        """
        return self.share() * self.mean_probability().exp()


def stack_rows(rows: Sequence[Tensor]) -> Tensor:
    """N tensors of E numbers or fewer as (N, E), filled up with 0."""
    longest = max(len(row) for row in rows)
    return torch.stack([F.pad(row, (0, longest - len(row))) for row in rows])


def _count(routing: Routing) -> tuple[Tensor, Tensor, Tensor]:
    """(E,) int64 first choices, (E,) float64 sum of their probabilities, (E,) int64 choices.

    Where experts choose, each token that an expert takes counts.
    """
    E, expert = routing.probs.shape[1], routing.expert
    is_first = is_chosen = routing.slot != SKIPPED
    if not routing.is_expert_choice:
        is_first = torch.zeros_like(is_chosen)
        is_first[:, 0] = True
    first = expert[is_first].cpu()
    probability = routing.probs.gather(1, expert)[is_first].cpu().double()
    return (
        torch.bincount(first, minlength=E),
        torch.bincount(first, probability, minlength=E),
        torch.bincount(expert[is_chosen].cpu(), minlength=E),
    )


def measure_use(model: Transformer, batches: Iterable[tuple[Tensor, Tensor]]) -> ExpertUse:
    """Run `model` over parallel text and count what its routers choose.

    The decoder reads the given target, not its own translation (teacher forcing). The model is in
    evaluation mode meanwhile, so nothing is dropped or random; its mode is then as before.

    Args:
        batches: (source, target) ids, each (B, S) int64 and padded, as `Transformer.forward` takes.
    """
    config = model.config
    use = ExpertUse.zero(config.moe_layer_names, config.num_experts_by_layer)
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
