"""The experts that go, merged into those that stay.

Each goes to the one whose router row points most in its direction, since that one is likely to get
its tokens; the weights become the mean weighted by use. Hidden units of two experts stand in no
common order, so those of the one that goes are matched with the other's first (Li et al. 2024,
"Merge, then compress", arXiv:2310.01334, merge so).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
from torch import Tensor

from mtmoe.checkpoint.fairseq_file import Checkpoint
from mtmoe.surgery.state import check_finite, layer_prefix

HIDDEN_DIM = {"w_in": 1, "b_in": 0, "w_out": 0, "w_gate": 1}  # of one expert's parts; b_out: none
PARTS = ("w_in", "b_in", "w_out", "b_out", "w_gate")
Expert = dict[str, Tensor]  # w_in (D, F), b_in (F,), w_out (F, D), b_out (D,), w_gate (D, F)


def merge_pruned(
    checkpoint: Checkpoint, kept: Sequence[Tensor], load: Tensor, weights: Mapping[str, Tensor]
) -> None:
    """Change the experts of the pruned `weights` in place.

    Args:
        kept: by MoE layer, (K,) int64 experts that stay.
        load: (N, E) share of the layer's choices: how much each expert counts.
        weights: those of the pruned file; router rows stay as they are.

    Raises:
        CheckpointError: a weight is not finite.
    """
    config = checkpoint.config
    layers = zip(config.moe_layer_names, config.num_experts_by_layer, kept, load, strict=True)
    for name, size, experts, share in layers:
        router = checkpoint.weights[f"{name}.feed_forward.ffn.router.weight"]
        check_finite(router, f"{name}.feed_forward.ffn.router.weight")
        goes_to = find_nearest(router, experts)
        for place, expert in enumerate(experts.tolist()):
            members = [e for e in range(size) if goes_to[e] == place and e not in experts.tolist()]
            if not members or not share[[expert, *members]].sum():
                continue
            parts = [_expert(checkpoint.state["model"], name, e) for e in (expert, *members)]
            merged = merge_experts(parts, share[[expert, *members]])
            for part, value in merged.items():
                weights[f"{layer_prefix(name)}experts.{part}"][place] = value


def find_nearest(router: Tensor, experts: Tensor) -> list[int]:
    """For each of the E experts, the place in `experts` of that with the nearest router row.

    Args:
        router: (E, D) rows; compared by the cosine of their angle.
        experts: (K,) int64.
    """
    rows = F.normalize(router.float(), dim=1)
    nearest: list[int] = (rows @ rows[experts].t()).argmax(1).tolist()
    return nearest


def merge_experts(experts: Sequence[Expert], share: Tensor) -> Expert:
    """The mean of experts, weighted by `share` of each, in the first one's hidden order."""
    first, *others = experts
    weight = (share / share.sum()).tolist()
    total = {part: value.float() * weight[0] for part, value in first.items()}
    for expert, w in zip(others, weight[1:], strict=True):
        order = match_hidden_units(first, expert)
        for part, value in expert.items():
            dim = HIDDEN_DIM.get(part)
            ordered = value if dim is None else value.index_select(dim, order)
            total[part] += ordered.float() * w
    return total


def match_hidden_units(first: Expert, other: Expert) -> Tensor:
    """(F,) int64: the hidden unit of `other` that matches each one of `first`.

    The assignment of the largest sum of products of incoming and outgoing weights.
    """
    similarity = torch.outer(first["b_in"].float(), other["b_in"].float())  # (F, F)
    similarity += first["w_out"].float() @ other["w_out"].float().t()
    for part in ("w_in", "w_gate"):
        if part in first:
            similarity += first[part].float().t() @ other[part].float()
    _, order = linear_sum_assignment(similarity.numpy(), maximize=True)
    return torch.from_numpy(order)


def _expert(weights: Mapping[str, Tensor], layer: str, number: int) -> Expert:
    names = {part: f"{layer_prefix(layer)}experts.{part}" for part in PARTS}
    found = {part: weights[name][number] for part, name in names.items() if name in weights}
    for part, numbers in found.items():
        check_finite(numbers, f"{layer}.feed_forward.ffn.experts.{part}")
    return found
