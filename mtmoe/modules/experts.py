"""Feed-forward networks: one, or one per expert."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmoe.config import Activation, TransformerConfig
from mtmoe.errors import LayoutError
from mtmoe.modules.expert_exchange import plan_exchange, receive_rows, return_rows, send_rows
from mtmoe.modules.linear import ColumnLinear, RowLinear
from mtmoe.modules.router import Routing
from mtmoe.ops.backend import Backend
from mtmoe.ops.buffers import BufferPool
from mtmoe.ops.cpu_padded import MAX_MEAN_ROWS
from mtmoe.ops.cpu_shared import SharedWeights
from mtmoe.ops.dispatch import Permutation
from mtmoe.ops.expert_ffn import ExpertWeights, activate
from mtmoe.parallel.collectives import sum_gradient, sum_over
from mtmoe.parallel.fitting import divisors, multiples_near
from mtmoe.parallel.mesh import ONE_PROCESS, ONE_RANK, Axis, Mesh
from mtmoe.parallel.slices import local_part


class FeedForward(nn.Module):
    """The dense FFN: linear, activation, linear.

    Args:
        tensor_axis: the ranks that share the hidden numbers out.
    """

    def __init__(
        self, config: TransformerConfig, ffn_dim: int, tensor_axis: Axis = ONE_RANK
    ) -> None:
        super().__init__()
        _check_width(ffn_dim, tensor_axis)
        self.axis = tensor_axis
        self.activation = config.activation
        self.fc_in = ColumnLinear(config.embed_dim, ffn_dim)
        is_gated = self.activation is Activation.swiglu
        self.fc_gate = ColumnLinear(config.embed_dim, ffn_dim, bias=False) if is_gated else None
        self.fc_out = RowLinear(ffn_dim, config.embed_dim, tensor_axis)
        self.activation_dropout = config.activation_dropout

    @property
    def weights(self) -> SharedWeights:
        """What the ops need of a network that is whole on this rank, and ungated."""
        maps = (self.fc_in, self.fc_out)
        return SharedWeights(*(local_part(w) for m in maps for w in (m.weight, m.bias)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        x = sum_gradient(x, self.axis)
        gate = None if self.fc_gate is None else self.fc_gate(x)
        hidden = activate(self.fc_in(x), gate, self.activation)
        hidden = F.dropout(hidden, self.activation_dropout, self.training)
        out: Tensor = self.fc_out(hidden)
        return out


class Experts(nn.Module):
    """E feed-forward networks whose weights are stacked: w_in (E, D, F), w_out (E, F, D).

    Args:
        mesh: the ranks of its `owners` own E / size experts each, those of its `slices` a
            slice of each expert's hidden numbers. `mtmoe.parallel.plan` shards the parameters.

    Raises:
        LayoutError: the experts, or their widths, do not divide among the ranks.
    """

    tensor_dims: ClassVar[dict[str, int]] = {"w_in": 2, "b_in": 1, "w_gate": 2, "w_out": 1}
    holds_experts: ClassVar[bool] = True

    def __init__(self, config: TransformerConfig, mesh: Mesh = ONE_PROCESS) -> None:
        super().__init__()
        E, D, F_ = config.router.num_experts, config.embed_dim, config.ffn_dim
        if E % mesh.owners.size:
            sizes = "expert_parallel_size" + (" * tensor_parallel_size" if mesh.joint else "")
            raise LayoutError(
                f"num_experts must be a multiple of {sizes} ({mesh.owners.size}), "
                f"but is {E}. Use {multiples_near(E, mesh.owners.size)} experts, or {sizes} "
                f"{divisors(E, 2 * mesh.owners.size)}."
            )
        _check_width(F_, mesh.slices)
        self.mesh = mesh
        self.activation = config.activation
        self.w_in = nn.Parameter(torch.empty(E, D, F_))
        self.b_in = nn.Parameter(torch.empty(E, F_))
        self.w_out = nn.Parameter(torch.empty(E, F_, D))
        self.b_out = nn.Parameter(torch.empty(E, D))
        is_gated = self.activation is Activation.swiglu
        self.w_gate = nn.Parameter(torch.empty(E, D, F_)) if is_gated else None
        self.activation_dropout = config.activation_dropout
        self.pool = BufferPool()

    @property
    def weights(self) -> ExpertWeights:
        """All that the ops need, of this rank's slices of its L experts."""
        whole = ExpertWeights(self.w_in, self.b_in, self.w_out, self.b_out, self.w_gate)
        own = whole.map(local_part)
        if self.mesh.slices.rank == 0:
            return own
        return own._replace(b_out=_OnFirstRank.apply(own.b_out))  # type: ignore[no-untyped-call]

    @property
    def active_dropout(self) -> float:
        """The dropout of hidden numbers: none in evaluation."""
        return self.activation_dropout if self.training else 0.0

    def can_join(self, shared: FeedForward, num_tokens: int, backend: Backend) -> bool:
        """Whether `forward` takes `shared`, for tokens of one choice each.

        Few rows an expert are faster by `mtmoe.ops.cpu_padded`.
        """
        is_whole = self.mesh.owners.size == self.mesh.slices.size == 1
        is_plain = self.activation is Activation.relu and self.active_dropout == 0
        has_few_rows = torch.is_grad_enabled() and num_tokens <= MAX_MEAN_ROWS * self.w_in.shape[0]
        return backend.fused_shared is not None and is_whole and is_plain and not has_few_rows

    def forward(
        self,
        x: Tensor,
        routing: Routing,
        backend: Backend,
        shared: SharedWeights | None = None,
        real: Tensor | None = None,
        beside: Callable[[], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The (T, D) weighted sums of what each token's experts make of it; and what `beside` does.

        Collective over the expert and tensor axes, forward and backward: a rank without tokens
        must call it.

        Args:
            shared: a network whose output is added, where `can_join`; `x` then may hold all
                positions of a batch, of which `real` are the T tokens.
            beside: another network, to be computed while rows travel to the ranks of their experts.
        """
        order = backend.sort_by_expert(routing.expert, routing.slot, routing.probs.shape[1])
        if shared is not None:
            assert backend.fused_shared is not None, "can_join says so"
            weight, own = routing.weight, self.weights
            y: Tensor = backend.fused_shared(x, weight, order, own, shared, self.pool, real)
            return y, None
        if self.mesh.has_exchange:
            return self._run_on_all_ranks(x, routing, order, backend, beside)
        tensor = self.mesh.slices
        total = backend.run_experts(
            sum_gradient(x, tensor),
            sum_gradient(routing.weight, tensor),
            order,
            self.weights,
            self.activation,
            self.active_dropout,
            self.pool,
        )
        return sum_over(total, tensor), None if beside is None else beside()

    def _run_on_all_ranks(
        self,
        x: Tensor,
        routing: Routing,
        order: Permutation,
        backend: Backend,
        beside: Callable[[], Tensor] | None,
    ) -> tuple[Tensor, Tensor | None]:
        exchange = plan_exchange(order.counts, self.mesh)
        rows = backend.permute(x, order)[: exchange.num_rows]
        under_way = send_rows(rows, exchange, self.mesh)
        other = None if beside is None else beside()
        received = receive_rows(under_way, exchange, self.mesh)
        out = backend.run_ffn(
            received, exchange.counts, self.weights, self.activation, self.active_dropout
        )
        returned = return_rows(out, exchange, self.mesh)
        return backend.combine(returned, routing.weight, order), other


class _OnFirstRank(torch.autograd.Function):
    """0 in place of a bias that another rank of the tensor group adds; all learn it alike."""

    @staticmethod
    def forward(ctx: Any, bias: Tensor) -> Tensor:
        return torch.zeros_like(bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def _check_width(ffn_dim: int, tensor_axis: Axis) -> None:
    if ffn_dim % tensor_axis.size:
        raise LayoutError(
            "ffn_dim and shared_ffn_dim must be multiples of tensor_parallel_size "
            f"({tensor_axis.size}), but one is {ffn_dim}. Use "
            f"{multiples_near(ffn_dim, tensor_axis.size)}, or tensor_parallel_size "
            f"{divisors(ffn_dim, 2 * tensor_axis.size)}."
        )
