"""First weights that depend on a seed and the parameter's name, never on layout or order."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn

from mtmoe.ops.routing import mix_seed
from mtmoe.parallel.slices import slices_of, stored_part

EXPERT_WEIGHTS = ("w_in", "w_out", "w_gate")


def initialise(model: nn.Module, seed: int) -> None:
    """Draw all parameters of `model` in place.

    Matrices are Xavier uniform, each expert's drawn from its own seed (its global number);
    embeddings and router rows are normal with variance 1/D, so that routers prefer some experts
    from the start: near-equal scores learn to differ slowly. A router's embeddings of languages
    have variance 1, as the normalised tokens that they are added to. Norms are 1, biases 0.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw_parameter(name, parameter, seed)


def draw_parameter(name: str, parameter: Tensor, seed: int) -> None:
    """Draw what this rank holds of one parameter; `name` is that in the model.

    Stacked experts are drawn one by one, others as a whole; in float32, whatever the dtype.
    """
    own, slices = stored_part(parameter), slices_of(parameter)
    leaf, seed = name.rpartition(".")[2], mix_seed(seed, zlib.crc32(name.encode()))
    if leaf in EXPERT_WEIGHTS:
        for row, number in enumerate(range(slices[0].start, slices[0].stop)):
            whole = torch.empty(parameter.shape[1:])
            nn.init.xavier_uniform_(whole, generator=_generator(mix_seed(seed, number)))
            own[row].copy_(whole[slices[1:]])
    elif parameter.dim() == 1 or leaf in ("b_in", "b_out"):
        own.fill_(1.0 if "norm" in name and leaf == "weight" else 0.0)
    else:
        whole = torch.empty(parameter.shape)
        _draw(name, whole, _generator(seed))
        own.copy_(whole[slices])


def _draw(name: str, whole: Tensor, generator: torch.Generator) -> None:
    if name.endswith("router.language"):
        whole.normal_(0, 1, generator=generator)
    elif name.endswith(("embedding.weight", "router.weight")):
        whole.normal_(0, whole.shape[1] ** -0.5, generator=generator)
    else:
        nn.init.xavier_uniform_(whole, generator=generator)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
