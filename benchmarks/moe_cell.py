"""One cell of the MoE layer's benchmark: its sizes, and the input, weights and calls of all rows.

Imported in the peers' environment too: needs torch only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.worker import Call

PASSES = ("fwd", "fwdbwd")
DTYPES = ("float32", "bfloat16")
DEVICES = ("cpu", "cuda")
PASSES_OF_A_CALL = 20  # on a GPU, which would sleep between single ones
EXPERT_RANGE = 0.04  # first weights of experts are uniform in +- this


@dataclass(frozen=True)
class Cell:
    """The sizes of one comparison."""

    tokens: int  # T
    experts: int  # E
    top_k: int  # K
    dtype: str  # of `DTYPES`
    dim: int  # D
    ffn_dim: int  # F
    device: str = "cpu"  # of `DEVICES`

    def __str__(self) -> str:
        return f"{self.tokens} tokens, {self.experts} experts, top-{self.top_k}, {self.dtype}"

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch's."""
        found: torch.dtype = getattr(torch, self.dtype)
        return found


def cell_of(options: dict[str, Any]) -> Cell:
    """The cell that travelled to a worker, with its process set up for it."""
    torch.set_num_threads(int(options.pop("threads")))
    return Cell(**options)


def make_model(make: Callable[[], nn.Module], cell: Cell, router: str = "") -> nn.Module:
    """What `make` builds, in the dtype of the cell, with the first weights that all rows have.

    It is built without memory, since each library's own first weights would take long.

    Args:
        router: name of the (E, D) parameter that scores experts; "": there is none.
    """
    with torch.device("meta"):
        model = make()
    model = model.to(cell.torch_dtype).to_empty(device=cell.device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == router:
                _fill_router(parameter)
            elif "bias" in name or name.rpartition(".")[2].startswith("b_"):
                parameter.zero_()
            else:
                parameter.uniform_(-EXPERT_RANGE, EXPERT_RANGE)
    return model


def _fill_router(weight: Tensor) -> None:
    """Rows of equal length: near-uniform routing, counts about multinomial."""
    rows = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    weight.copy_(rows / rows.norm(dim=1, keepdim=True))


def draw(cell: Cell, seed: int) -> Tensor:
    """(1, T, D) normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(1, cell.tokens, cell.dim, generator=generator)
    return numbers.to(cell.device, cell.torch_dtype)


def make_calls(
    model: nn.Module, cell: Cell, forward: Callable[[Tensor], Tensor]
) -> dict[str, Call]:
    """Forward in evaluation without gradients; forward and backward in training.

    Backward starts at a given gradient of the output, and reaches the input and all parameters;
    gradients are given back after the clock stops. Losses of the router are computed where the
    layer does so, but have no part in backward. On a GPU, a call is `PASSES_OF_A_CALL` passes in a
    row, as in a training, and ends when their work is done.

    Args:
        forward: (1, T, D) to (1, T, D) by `model`.
    """
    x, gradient = draw(cell, seed=2).requires_grad_(), draw(cell, seed=3)

    count = PASSES_OF_A_CALL if cell.device == "cuda" else 1

    def run_forward() -> None:
        for _ in range(count):
            with torch.no_grad():
                forward(x)
        wait_for(cell.device)

    def run_both() -> None:
        for number in range(count):
            forward(x).backward(gradient)  # type: ignore[no-untyped-call]
            if number + 1 < count:
                forget()
        wait_for(cell.device)

    def forget() -> None:
        x.grad = None
        model.zero_grad(set_to_none=True)

    return {
        "fwd": Call(run_forward, before=model.eval),
        "fwdbwd": Call(run_both, before=model.train, after=forget),
    }


def wait_for(device: str) -> None:
    """Until a GPU has done what it was given; a CPU has always."""
    if device == "cuda":
        torch.cuda.synchronize()
