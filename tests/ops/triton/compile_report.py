"""What the kernels need of a GPU: registers, shared memory and spills, for sm_80 and sm_90.

Compiles, without a GPU, exactly what the public functions launch: they run on meta tensors, and
each launch is compiled instead of started. Prints the table of docs/kernels.md; with --all, also
for float16, for smaller tiles and for widths that 16 does not divide; with --json, what
test_compile.py checks.
Usage: python -m tests.ops.triton.compile_report [--all | --json]
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from mtmoe.config import Activation
from mtmoe.ops.expert_ffn import ExpertWeights
from mtmoe.ops.triton.grouped import expert_ffn
from mtmoe.ops.triton.permute import combine, permute
from mtmoe.ops.triton.routing import assign_slots, sort_by_expert

ARCHITECTURES = (80, 90)


@dataclass(frozen=True)
class Sizes:
    """One MoE layer and its batch."""

    dtype: torch.dtype
    T: int = 8192
    D: int = 1024
    F: int = 4096
    E: int = 64
    K: int = 2


MAIN = (Sizes(torch.bfloat16), Sizes(torch.float32))
HARDEST = (  # for registers: the highest tile of fewer columns or warps, and unaligned widths
    *MAIN,
    Sizes(torch.bfloat16, T=2048),
    Sizes(torch.bfloat16, D=1023, F=4095),
    Sizes(torch.float32, D=1023, F=4095),
    Sizes(torch.float32, T=1024),
)
EVERY = (
    *HARDEST,
    Sizes(torch.float16),
    *(Sizes(torch.bfloat16, T=T) for T in (512, 1024)),
    Sizes(torch.float32, T=512),
    *(Sizes(dtype, T=512, D=1023, F=4095) for dtype in (torch.bfloat16, torch.float32)),
)
OPTIONAL = {  # arguments that a launch may leave out
    "linear_kernel": ("bias", "kept", "x2"),
    "gated_kernel": ("gate",),
    "sum_choices_kernel": ("weight",),
}


@dataclass(frozen=True)
class Usage:
    """What one compiled kernel takes."""

    architecture: int
    kernel: str
    variant: str
    num_warps: int
    registers: int  # of a thread
    shared_bytes: int  # of a block
    spill_bytes: int  # of a thread, stores and loads


class Driver:
    """As much of a GPU driver as compiling needs."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_device(self) -> int:
        return self.architecture  # a number of its own keeps the compiled kernels apart

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)


@contextmanager
def compiling(architecture: int) -> Iterator[list[Usage]]:
    """Within, launches are compiled, measured and not started."""
    found: dict[tuple[str, str], Usage] = {}
    usages: list[Usage] = []
    original = JITFunction.run

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = original(self, *args, grid=grid, warmup=True, **options)
        key = (self.__name__, describe(self, args, options))
        if key not in found:
            found[key] = measure(kernel, *key, architecture)
            usages.append(found[key])
        return kernel

    driver.set_active(Driver(architecture))
    JITFunction.run = run
    try:
        yield usages
    finally:
        JITFunction.run = original


def run_layer(sizes: Sizes) -> None:
    """Each activation's MoE layer in training and inference, on tensors without memory.

    Weights are float32, whose gradients are larger than those of half precision.
    """
    T, D, F, E, K = sizes.T, sizes.D, sizes.F, sizes.E, sizes.K
    with torch.device("meta"):
        expert = torch.empty(T, K, dtype=torch.int64)
        permutation = sort_by_expert(expert, assign_slots(expert, E, T // E), E)
        shapes = ((E, D, F), (E, F), (E, F, D), (E, D), (E, D, F))
        w_in, b_in, w_out, b_out, w_gate = (torch.empty(*s, requires_grad=True) for s in shapes)
        x = torch.empty(T, D, dtype=sizes.dtype, requires_grad=True)
        weight = torch.empty(T, K, requires_grad=True)
        for activation in Activation:
            gate = w_gate if activation is Activation.swiglu else None
            weights = ExpertWeights(w_in, b_in, w_out, b_out, gate)
            rows = permute(x, permutation)
            y = combine(
                expert_ffn(rows, permutation.counts, weights, activation), weight, permutation
            )
            torch.autograd.backward(y, torch.empty_like(y))
            with torch.no_grad():
                expert_ffn(rows, permutation.counts, weights, activation)


def report(architecture: int, cases: tuple[Sizes, ...]) -> list[Usage]:
    """Each kernel and variant once, in the order of their first launch."""
    usages = []
    for sizes in cases:
        with compiling(architecture) as found:
            run_layer(sizes)
        is_odd = sizes.D % 16 != 0
        usages += [replace(u, variant=f"odd sizes {u.variant}") if is_odd else u for u in found]
    return list(dict.fromkeys(usages))


def table(by_architecture: dict[int, list[Usage]]) -> str:
    """The report in Markdown, one line a kernel and variant."""
    lines = [
        "| kernel | variant, tile | warps | sm_80: registers, shared KB, spills |"
        " sm_90: registers, shared KB, spills |",
        "| --- | --- | --- | --- | --- |",
    ]
    for usages in zip(*(by_architecture[a] for a in ARCHITECTURES), strict=True):
        first = usages[0]
        assert all((u.kernel, u.variant) == (first.kernel, first.variant) for u in usages)
        cells = [f"{u.registers}, {u.shared_bytes / 1024:.1f}, {u.spill_bytes}" for u in usages]
        lines.append(
            f"| {first.kernel} | {first.variant} | {first.num_warps} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def describe(kernel: Any, args: tuple[Any, ...], options: dict[str, Any]) -> str:
    """The dtype, activation, optional arguments and tile of a launch."""
    dtypes = {str(a.dtype).removeprefix("torch.") for a in args if isinstance(a, torch.Tensor)}
    parts = sorted(dtypes & {"bfloat16", "float16", "float32"})[:1]
    parts.append(options.get("ACTIVATION", "none"))
    given = dict(zip(kernel.arg_names, args, strict=False))
    names = OPTIONAL.get(kernel.__name__, ())
    parts += [f"+{name}" for name in names if given[f"{name}_ptr"] is not None]
    tile = [options[name] for name in ("ROWS", "COLUMNS", "DEPTH", "BLOCK") if name in options]
    return " ".join([*(p for p in parts if p != "none"), "x".join(map(str, tile))])


def measure(kernel: Any, name: str, variant: str, architecture: int) -> Usage:
    """Ask the ptxas that Triton uses, with Triton's options."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(kernel.asm["ptx"])
        file.flush()
        log = subprocess.run(
            [
                get_ptxas(architecture).path,
                "-v",
                "--regAllocOptLevel=2",
                f"--gpu-name={sm_arch_from_capability(architecture)}",
                file.name,
                "-o",
                "/dev/null",
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stderr
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", log)]
    registers = re.search(r"Used (\d+) registers", log)
    assert registers, log
    assert spills, log
    metadata = kernel.metadata
    return Usage(
        architecture,
        name,
        variant,
        metadata.num_warps,
        int(registers[1]),
        metadata.shared,
        sum(spills),
    )


def main() -> None:
    if "--json" in sys.argv[1:]:
        usages = [asdict(u) for a in ARCHITECTURES for u in report(a, HARDEST)]
        print(json.dumps(usages))  # noqa: T201
        return
    cases = EVERY if "--all" in sys.argv[1:] else MAIN
    print(table({a: report(a, cases) for a in ARCHITECTURES}))  # noqa: T201


if __name__ == "__main__":
    main()
