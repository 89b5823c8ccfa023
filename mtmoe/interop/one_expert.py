"""A model of one expert a layer is a dense model: its weights under dense names."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mtmoe.checkpoint.fairseq_file import Checkpoint
from mtmoe.config import ChooseBy, SharedMode, TransformerConfig


def is_one_expert(config: TransformerConfig) -> bool:
    """Whether every MoE layer computes one feed-forward network, for all tokens alike.

    The only expert's weight is 1, since it has all the probability. A network beside it that is
    added makes one wider network with it.
    """
    is_plain = config.encoder_routing is ChooseBy.token and config.shared_mode is SharedMode.add
    return bool(config.moe_layer_names) and config.router.num_experts == 1 and is_plain


def as_dense(checkpoint: Checkpoint) -> Checkpoint:
    """The same function without MoE layers; the weights of a dense model are taken as they are.

    Narrower networks are filled up with zeros, so that all have one width.
    """
    config = checkpoint.config
    if not is_one_expert(config):
        return checkpoint
    width = config.ffn_dim + config.shared_ffn_dim
    dense = replace(config, moe_every=0, shared_ffn_dim=0, ffn_dim=width)
    weights = {n: t for n, t in checkpoint.weights.items() if ".feed_forward.ffn." not in n}
    for side in ("encoder", "decoder"):
        for n in range(getattr(config, f"{side}_layers")):
            name = f"{side}.{n}.feed_forward.ffn."
            found = {k.removeprefix(name): t for k, t in checkpoint.weights.items() if name in k}
            merged = _merge(found) if config.is_moe(n) else found
            weights |= {name + k: t for k, t in _widen(merged, width).items()}
    return replace(checkpoint, config=dense, weights=weights)


def _merge(layer: dict[str, Tensor]) -> dict[str, Tensor]:
    """The expert, and the network beside it if there is one, as one network."""
    merged = {
        "fc_in.weight": layer["experts.w_in"][0].t(),
        "fc_in.bias": layer["experts.b_in"][0],
        "fc_out.weight": layer["experts.w_out"][0].t(),
        "fc_out.bias": layer["experts.b_out"][0],
    }
    if "experts.w_gate" in layer:
        merged["fc_gate.weight"] = layer["experts.w_gate"][0].t()
    if "shared.fc_in.weight" not in layer:
        return merged
    return {name: _join(name, tensor, layer[f"shared.{name}"]) for name, tensor in merged.items()}


def _join(name: str, expert: Tensor, shared: Tensor) -> Tensor:
    if name == "fc_out.bias":
        return expert + shared
    return torch.cat([expert, shared], dim=1 if name == "fc_out.weight" else 0)


def _widen(layer: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """Hidden numbers up to `width`, whose weights are 0: every activation of 0 is 0."""
    missing = width - layer["fc_in.bias"].shape[0]
    pads = {"fc_out.weight": (0, missing), "fc_out.bias": (0, 0), "fc_in.bias": (0, missing)}
    return {name: F.pad(t, pads.get(name, (0, 0, 0, missing))) for name, t in layer.items()}
