"""First weights that depend on a seed and the parameter's name, never on layout or order."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn

from mtmoe.modules.experts import Experts
from mtmoe.ops.routing import mix_seed

EXPERT_WEIGHTS = ("w_in", "w_out", "w_gate")


def initialise(model: nn.Module, seed: int) -> None:
    """Draw all parameters of `model` in place.

    Matrices are Xavier uniform, each expert's drawn from its own seed (its global number);
    embeddings and router rows are normal with variance 1/D, so that routers prefer some experts
    from the start: near-equal scores learn to differ slowly. A router's embeddings of languages
    have variance 1, as the normalised tokens that they are added to. Norms are 1, biases 0.
    """
    first = {n: m.first_expert for n, m in model.named_modules() if isinstance(m, Experts)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            first_expert = first.get(name.rpartition(".")[0], 0)
            draw_parameter(name, parameter, seed, first_expert)


def draw_parameter(name: str, parameter: Tensor, seed: int, first_expert: int = 0) -> None:
    """Draw one parameter of a model in place, as `initialise` does; `name` is that in the model."""
    leaf, seed = name.rpartition(".")[2], mix_seed(seed, zlib.crc32(name.encode()))
    generator = torch.Generator().manual_seed(seed)
    if leaf in EXPERT_WEIGHTS:
        for number, expert in enumerate(parameter, first_expert):
            nn.init.xavier_uniform_(
                expert, generator=torch.Generator().manual_seed(mix_seed(seed, number))
            )
    elif parameter.dim() == 1 or leaf in ("b_in", "b_out"):
        parameter.fill_(1.0 if "norm" in name and leaf == "weight" else 0.0)
    elif name.endswith("router.language"):
        parameter.normal_(0, 1, generator=generator)
    elif name.endswith(("embedding.weight", "router.weight")):
        parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
    else:
        nn.init.xavier_uniform_(parameter, generator=generator)
