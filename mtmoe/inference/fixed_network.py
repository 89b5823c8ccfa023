"""The parts of the network that hold weights, as `weights.fix_weights` puts them in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmoe.config import Activation, ExpertType, WeightType
from mtmoe.inference.expert_memory import ExpertMemory
from mtmoe.inference.expert_share import ALL_EXPERTS, ExpertShare, OwnExperts
from mtmoe.modules.embedding import VocabularyEmbedding
from mtmoe.modules.experts import Experts, FeedForward
from mtmoe.ops.backend import Backend
from mtmoe.ops.expert_ffn import activate
from mtmoe.ops.fixed_linear import FixedLinear
from mtmoe.ops.int4_linear import Int4Linear
from mtmoe.ops.int8_rows import quantize_rows
from mtmoe.ops.packed_linear import multiply_groups

VOCABULARY_MULTIPLE = 64  # `inference.top` looks at so many symbols together


def fix_linear(linear: nn.Linear, kind: WeightType, has_relu: bool = False) -> FixedLinear:
    """The same map as `linear`."""
    return FixedLinear(linear.weight, linear.bias, kind, has_relu)


class FixedFeedForward(nn.Module):
    """A `FeedForward`, or one expert."""

    def __init__(
        self,
        fc_in: FixedLinear | Int4Linear,
        fc_out: FixedLinear | Int4Linear,
        fc_gate: FixedLinear | Int4Linear | None,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.fc_in, self.fc_out, self.fc_gate = fc_in, fc_out, fc_gate
        self.activation = activation

    @staticmethod
    def of(ffn: FeedForward, kind: WeightType) -> FixedFeedForward:
        """The same function as `ffn`'s."""
        gate = None if ffn.fc_gate is None else fix_linear(ffn.fc_gate, kind)
        fc_in = fix_linear(ffn.fc_in, kind, ffn.activation is Activation.relu)
        return FixedFeedForward(fc_in, fix_linear(ffn.fc_out, kind), gate, ffn.activation)

    @property
    def num_bytes(self) -> int:
        """Of the weights."""
        maps = (self.fc_in, self.fc_out, self.fc_gate)
        return sum(linear.num_bytes for linear in maps if linear is not None)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        rows = x.reshape(-1, x.shape[-1])
        return run_each([self], [rows.shape[0]], rows).view(x.shape)


def run_each(networks: Sequence[FixedFeedForward], sizes: Sequence[int], x: Tensor) -> Tensor:
    """The first rows through the first network, and so on; networks of one kind and size.

    Args:
        sizes: rows of each.
        x: (R, D) float32.

    Returns:
        (R, D) float32
    """
    hidden = _multiply_each([each.fc_in for each in networks], sizes, x)
    activation = networks[0].activation
    if activation is not Activation.relu:
        gates = [each.fc_gate for each in networks if each.fc_gate is not None]
        gate = _multiply_each(gates, sizes, x).float() if gates else None
        hidden = activate(hidden.float(), gate, activation)
    return _multiply_each([each.fc_out for each in networks], sizes, hidden).float()


def _multiply_each(
    maps: Sequence[FixedLinear | Int4Linear], sizes: Sequence[int], x: Tensor
) -> Tensor:
    packed = [each.packed for each in maps if isinstance(each, FixedLinear) and each.packed]
    if len(packed) == len(maps):
        return multiply_groups(packed, sizes, x)
    parts = zip(maps, torch.split(x, list(sizes)), strict=True)
    return torch.cat([each.multiply(part) for each, part in parts])


class FixedExperts(OwnExperts):
    """`OwnExperts`, each laid out by itself.

    Args:
        memory: keeps those that have been used; the weights of the others stay where `experts` has
            them: in the file, if that is mapped. None: all are laid out at once.
    """

    def __init__(
        self,
        experts: Experts,
        kind: WeightType | ExpertType,
        memory: ExpertMemory[FixedFeedForward] | None = None,
        share: ExpertShare = ALL_EXPERTS,
    ) -> None:
        super().__init__(experts.w_in.shape[0], share)
        self.kind, self.activation, self.memory = kind, experts.activation, memory
        self._stacked = experts.weights.map(Tensor.detach)
        self._fixed: dict[int, FixedFeedForward] = {}
        if memory is None:
            self._fixed = {e: self._lay_out(e) for e in self.own}
            del self._stacked

    def run_own(self, rows: Tensor, counts: Tensor, backend: Backend) -> Tensor:
        """See `OwnExperts`."""
        sizes = {e: size for e, size in zip(self.own, counts.tolist(), strict=True) if size}
        if not sizes:
            return rows
        if self.memory is None:
            return run_each([self._expert(e) for e in sizes], list(sizes.values()), rows)
        parts = zip(sizes, torch.split(rows, list(sizes.values())), strict=True)
        return torch.cat([self._expert(e)(part) for e, part in parts])

    def _expert(self, number: int) -> FixedFeedForward:
        if self.memory is None:
            return self._fixed[number]
        return self.memory.get((id(self), number), lambda: self._lay_out(number))

    def _lay_out(self, number: int) -> FixedFeedForward:
        w = self._stacked.map(lambda stack: stack[number])
        is_relu = self.activation is Activation.relu
        with torch.no_grad():
            fc_in = self._linear(w.w_in.t(), w.b_in, is_relu)
            fc_gate = None if w.w_gate is None else self._linear(w.w_gate.t(), None)
            fc_out = self._linear(w.w_out.t(), w.b_out)
        return FixedFeedForward(fc_in, fc_out, fc_gate, self.activation)

    def _linear(
        self, weight: Tensor, bias: Tensor | None, has_relu: bool = False
    ) -> FixedLinear | Int4Linear:
        if isinstance(self.kind, ExpertType):
            return Int4Linear(weight, bias, has_relu)
        return FixedLinear(weight, bias, self.kind, has_relu)


class FixedEmbedding(nn.Module):
    """`VocabularyEmbedding` with a projection to a multiple of 64 symbols, which are never likely.

    The table to read from is as precise as the projection.
    """

    def __init__(self, embedding: VocabularyEmbedding, kind: WeightType) -> None:
        super().__init__()
        table = embedding.weight.detach().float()
        self.num_embeddings = table.shape[0]
        self.scale: Tensor | None = None
        if kind is WeightType.int8:
            self.table, self.scale = quantize_rows(table)
        else:
            self.table = table.to(getattr(torch, kind), copy=True)
        missing = -self.num_embeddings % VOCABULARY_MULTIPLE
        bias = F.pad(table.new_zeros(self.num_embeddings), (0, missing), value=float("-inf"))
        self.output = FixedLinear(F.pad(table, (0, 0, 0, missing)), bias, kind)

    def forward(self, ids: Tensor) -> Tensor:
        """(...) int64 to (..., D) float32."""
        found = F.embedding(ids, self.table).float()
        return found if self.scale is None else found * F.embedding(ids, self.scale)

    def project(self, states: Tensor) -> Tensor:
        """Logits of decoder states, (..., D) to (..., V'); -inf for those from V on."""
        out: Tensor = self.output(states)
        return out
