"""Feed-forward networks: one, or one per expert."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmoe.config import Activation, TransformerConfig
from mtmoe.errors import LayoutError
from mtmoe.modules.expert_exchange import plan_exchange, return_rows, send_rows
from mtmoe.modules.router import Routing
from mtmoe.ops.backend import Backend
from mtmoe.ops.buffers import BufferPool
from mtmoe.ops.dispatch import Permutation
from mtmoe.ops.expert_ffn import ExpertWeights, activate
from mtmoe.parallel.mesh import ONE_RANK, Axis


class FeedForward(nn.Module):
    """The dense FFN: linear, activation, linear."""

    def __init__(self, config: TransformerConfig, ffn_dim: int) -> None:
        super().__init__()
        self.activation = config.activation
        self.fc_in = nn.Linear(config.embed_dim, ffn_dim)
        is_gated = self.activation is Activation.swiglu
        self.fc_gate = nn.Linear(config.embed_dim, ffn_dim, bias=False) if is_gated else None
        self.fc_out = nn.Linear(ffn_dim, config.embed_dim)
        self.activation_dropout = config.activation_dropout

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        gate = None if self.fc_gate is None else self.fc_gate(x)
        hidden = activate(self.fc_in(x), gate, self.activation)
        hidden = F.dropout(hidden, self.activation_dropout, self.training)
        out: Tensor = self.fc_out(hidden)
        return out


class Experts(nn.Module):
    """L feed-forward networks whose weights are stacked: w_in (L, D, F), w_out (L, F, D).

    Args:
        axis: the ranks that share the E experts out: this one owns L = E / size of them, from
            `first_expert` on.

    Raises:
        LayoutError: the experts do not divide among the ranks.
    """

    def __init__(self, config: TransformerConfig, axis: Axis = ONE_RANK) -> None:
        super().__init__()
        E, D, F_ = config.router.num_experts, config.embed_dim, config.ffn_dim
        if E % axis.size:
            raise LayoutError(
                f"num_experts must be a multiple of expert_parallel_size ({axis.size}), but is "
                f"{E}. Choose another number of either."
            )
        L = E // axis.size
        self.axis, self.first_expert = axis, axis.rank * L
        self.activation = config.activation
        self.w_in = nn.Parameter(torch.empty(L, D, F_))
        self.b_in = nn.Parameter(torch.empty(L, F_))
        self.w_out = nn.Parameter(torch.empty(L, F_, D))
        self.b_out = nn.Parameter(torch.empty(L, D))
        is_gated = self.activation is Activation.swiglu
        self.w_gate = nn.Parameter(torch.empty(L, D, F_)) if is_gated else None
        self.activation_dropout = config.activation_dropout
        self.pool = BufferPool()

    @property
    def weights(self) -> ExpertWeights:
        """All that the ops need."""
        return ExpertWeights(self.w_in, self.b_in, self.w_out, self.b_out, self.w_gate)

    @property
    def active_dropout(self) -> float:
        """The dropout of hidden numbers: none in evaluation."""
        return self.activation_dropout if self.training else 0.0

    def forward(self, x: Tensor, routing: Routing, backend: Backend) -> Tensor:
        """The (T, D) weighted sums of what each token's experts make of it.

        Collective over the expert axis, forward and backward: a rank without tokens must call it.
        """
        order = backend.sort_by_expert(routing.expert, routing.slot, routing.probs.shape[1])
        if self.axis.size > 1:
            return self._run_on_all_ranks(x, routing, order, backend)
        return backend.run_experts(
            x,
            routing.weight,
            order,
            self.weights,
            self.activation,
            self.active_dropout,
            self.pool,
        )

    def _run_on_all_ranks(
        self, x: Tensor, routing: Routing, order: Permutation, backend: Backend
    ) -> Tensor:
        exchange = plan_exchange(order.counts, self.axis)
        rows = backend.permute(x, order)[: sum(exchange.send)]
        received = send_rows(rows, exchange, self.axis)
        out = backend.run_ffn(
            received, exchange.counts, self.weights, self.activation, self.active_dropout
        )
        return backend.combine(return_rows(out, exchange, self.axis), routing.weight, order)
