"""`mtmoe` with a mistake that was seen in others: experts' gradients grow with the expert ranks."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor

from mtmoe.cli.main import main
from mtmoe.report import layout_check


def break_expert_gradients() -> None:
    """Break the layouts of this process whose only sharded parameters are experts."""
    reduce = layout_check.reduce_gradients

    def reduce_wrongly(parameters: Iterable[Tensor], mesh: Any) -> None:
        parameters = list(parameters)
        reduce(parameters, mesh)
        for parameter in parameters:
            if isinstance(parameter, DTensor) and parameter.grad is not None:
                parameter.grad.mul_(mesh.expert.size)

    layout_check.reduce_gradients = reduce_wrongly


if __name__ == "__main__":
    break_expert_gradients()
    sys.exit(main())
