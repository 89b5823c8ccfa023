"""Experts that several ranks hold, each rank some of every layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from mtmoe.errors import LayoutError
from mtmoe.modules.experts import Experts
from mtmoe.modules.moe_layer import MoELayer
from mtmoe.modules.router import Routing
from mtmoe.modules.transformer import Transformer
from mtmoe.ops.backend import Backend
from mtmoe.parallel.collectives import RowShares, gather_rows
from mtmoe.parallel.mesh import ONE_RANK, Axis


@dataclass(frozen=True)
class ExpertShare:
    """Which experts of each layer this rank holds, and how the others' outputs come here.

    Experts are cut into contiguous parts of about equal size, one a rank. All ranks route the same
    tokens and take the rows of their own experts.
    """

    axis: Axis = ONE_RANK  # the ranks that hold different experts

    def check(self, num_experts: Sequence[int]) -> None:
        """Refuse more ranks than a layer has experts: some would hold none at all.

        Args:
            num_experts: of each MoE layer.

        Raises:
            LayoutError: there are.
        """
        most = max(num_experts, default=1)
        if self.axis.size > most:
            raise LayoutError(
                "--expert-parallel-size must be at most the number of experts of a layer "
                f"({most}), but is {self.axis.size}. Give a smaller one."
            )

    def own(self, num_experts: int) -> range:
        """The numbers of this rank's experts in a layer of so many."""
        return self._parts(num_experts)[self.axis.rank]

    def own_rows(self, sizes: Sequence[int]) -> slice:
        """The rows of this rank's experts, of those in expert order.

        Args:
            sizes: rows of each expert.
        """
        own = self.own(len(sizes))
        first = sum(sizes[: own.start])
        return slice(first, first + sum(sizes[own.start : own.stop]))

    def gather(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """The outputs of all experts out of the outputs of this rank's.

        Rows are copied, not summed, so that they have the bits that one rank would give them.
        Collective: every rank of the axis must reach it, also one without rows.

        Args:
            rows: (N, D), those of `own_rows`.

        Returns:
            (R, D) in expert order.
        """
        if self.axis.size == 1:
            return rows
        counts = [sum(sizes[n] for n in part) for part in self._parts(len(sizes))]
        padded, device = max(counts), rows.device
        place = [torch.arange(n, device=device) + r * padded for r, n in enumerate(counts)]
        own = self.own_rows(sizes)
        mine = torch.arange(own.start, own.stop, device=device)
        return gather_rows(rows, RowShares(mine, torch.cat(place), padded), self.axis)

    def _parts(self, num_experts: int) -> list[range]:
        size = self.axis.size
        edges = [rank * num_experts // size for rank in range(size + 1)]
        return [range(*edge) for edge in pairwise(edges)]


ALL_EXPERTS = ExpertShare()


class OwnExperts(nn.Module):
    """`Experts` of which this rank holds its share; without dropout.

    Args:
        num_experts: of the layer.
    """

    active_dropout = 0.0

    def __init__(self, num_experts: int, share: ExpertShare) -> None:
        super().__init__()
        self.share, self.own = share, share.own(num_experts)

    def can_join(self, *_: object) -> bool:
        """A shared network is computed beside the experts."""
        return False

    def forward(
        self,
        x: Tensor,
        routing: Routing,
        backend: Backend,
        beside: Callable[[], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The (T, D) weighted sums, and what `beside` gives; see `Experts`."""
        other = None if beside is None else beside()
        order = backend.sort_by_expert(routing.expert, routing.slot, routing.probs.shape[1])
        sizes = order.counts.tolist()
        if not any(sizes):
            return torch.zeros_like(x), other
        rows = backend.permute(x, order)[self.share.own_rows(sizes)]
        out = self.run_own(rows, order.counts[self.own.start : self.own.stop], backend)
        return backend.combine(self.share.gather(out, sizes), routing.weight, order), other

    def run_own(self, rows: Tensor, counts: Tensor, backend: Backend) -> Tensor:
        """(N, D) rows of this rank's experts, in their order, to (N, D) outputs.

        Args:
            counts: rows of each.
        """
        raise NotImplementedError


class SharedOutExperts(OwnExperts):
    """`OwnExperts` whose network is not laid out, as on GPUs."""

    def __init__(self, experts: Experts, share: ExpertShare) -> None:
        super().__init__(experts.w_in.shape[0], share)
        self.experts = experts
        for name, stack in list(experts.named_parameters()):
            own = stack.detach()[self.own.start : self.own.stop]
            setattr(experts, name, nn.Parameter(own, requires_grad=False))

    def run_own(self, rows: Tensor, counts: Tensor, backend: Backend) -> Tensor:
        """See `OwnExperts`."""
        return backend.run_ffn(rows, counts, self.experts.weights, self.experts.activation)


def keep_own_experts(model: Transformer, share: ExpertShare) -> None:
    """Drop the experts of other ranks from `model`; in place."""
    for layer in model.modules():
        if isinstance(layer, MoELayer):
            layer.experts = SharedOutExperts(layer.experts, share)  # type: ignore[assignment]
