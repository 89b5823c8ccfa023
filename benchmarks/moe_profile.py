"""Where the time of mtmoe's MoE layer goes, beside what this machine could do at best.

A row of its own for `benchmarks.round_robin`: its calls return numbers instead of only taking time.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.moe_cell import PASSES, Cell, cell_of, draw
from benchmarks.moe_rows import build_layer, calls_of
from benchmarks.worker import Call
from mtmoe.config import BackendChoice
from mtmoe.modules.tokens import Tokens
from mtmoe.ops.cpu_matmul import fastest_float32
from mtmoe.ops.precision import fastest_seconds

REPEATS = 7
PEAK_SIZE = 2048  # rows and columns of the product that shows the peak
READ_BYTES = 2**30  # more than any cache holds
PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "baddbmm", "matmul", "linear", "_grouped_mm")
COPIES = (
    "index_select", "index_copy_", "index_add_", "index", "index_put_", "gather", "scatter",
    "copy_", "cat", "clone", "fill_", "zero_", "new_zeros", "_index_put_impl_", "scatter_",
)  # fmt: skip
NUM_SHOWN = 8  # operators of the longest time


def build(options: dict[str, Any]) -> dict[str, Call]:
    """For each pass, a call that measures and returns what `to_markdown` reads."""
    cell = cell_of(options)
    layer = build_layer(cell, BackendChoice.auto)
    layer.eval()
    with torch.no_grad():
        used = layer(draw(cell, seed=2), Tokens((1, cell.tokens)))[1].expert.unique().numel()
    calls = calls_of(layer, cell)

    def measure(name: str) -> Callable[[], dict[str, Any]]:
        return lambda: {**measure_parts(calls[name]), **measure_limits(cell, name, used)}

    return {name: Call(measure(name)) for name in PASSES}


def measure_parts(call: Call) -> dict[str, Any]:
    """The median seconds of a call, and seconds a call by kind and by operator."""
    for _ in range(2):
        call.timed()
    seconds = median(call.timed()["seconds"] for _ in range(REPEATS))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        watched = sum(call.timed()["seconds"] for _ in range(REPEATS)) / REPEATS
    operators: dict[str, float] = {
        event.key: event.self_cpu_time_total / 1e6 / REPEATS for event in profiler.key_averages()
    }
    kinds = {"products": 0.0, "copies": 0.0}
    for name, share in operators.items():
        kind = _kind(name)
        if kind in kinds:
            kinds[kind] += share
    kinds["rest"] = max(watched - sum(kinds.values()), 0.0)
    longest = sorted(operators.items(), key=lambda item: -item[1])[:NUM_SHOWN]
    return {"seconds": seconds, "watched": watched, "kinds": kinds, "operators": dict(longest)}


def _kind(operator: str) -> str:
    name = operator.removeprefix("aten::")
    if name in PRODUCTS or "mkldnn" in name:
        return "products"
    return "copies" if name in COPIES else "rest"


def measure_limits(cell: Cell, pass_name: str, num_used: int) -> dict[str, Any]:
    """What the experts' FLOPs and weights take at the peak and the bandwidth measured here.

    Backward makes two more products of the same size for each, reads the weights again, and writes
    as many gradients.

    Args:
        num_used: experts that have tokens.
    """
    factor = 1 if pass_name == "fwd" else 3
    flops = factor * 4 * cell.tokens * cell.top_k * cell.dim * cell.ffn_dim
    weights = factor * 2 * num_used * cell.dim * cell.ffn_dim * cell.torch_dtype.itemsize
    peaks = {dtype: measure_peak(dtype) for dtype in {cell.dtype, "float32"}}
    dtype = max(peaks, key=lambda name: peaks[name])  # mtmoe makes products in the faster one
    peak, bandwidth = peaks[dtype], measure_bandwidth()
    return {
        "peak": peak,
        "peak_dtype": dtype,
        "bandwidth": bandwidth,
        "flops": flops,
        "weight_bytes": weights,
        "product_limit": flops / peak,
        "weight_limit": weights / bandwidth,
    }


def measure_peak(dtype: str) -> float:
    """FLOP/s of a large product, the better of torch's default and mtmoe's choice."""
    a, b = (torch.randn(PEAK_SIZE, PEAK_SIZE).to(getattr(torch, dtype)) for _ in range(2))
    seconds = [fastest_seconds(lambda: a @ b)]
    with fastest_float32():
        seconds.append(fastest_seconds(lambda: a @ b))
    return 2 * PEAK_SIZE**3 / min(seconds)


def measure_bandwidth() -> float:
    """Bytes a second that sums over a large tensor read."""
    x = torch.ones(READ_BYTES // 4)
    return READ_BYTES / min(fastest_seconds(x.sum), fastest_seconds(lambda: x @ x))


def to_markdown(title: str, found: dict[str, Any]) -> str:
    """The parts of one pass and the limits, as a table in milliseconds."""

    def line(name: str, seconds: float, note: str) -> str:
        return f"| {name} | {1e3 * seconds:.2f} | {note} |"

    lines = [f"### {title}\n", "| what | ms | |", "| --- | --- | --- |"]
    lines.append(line("**one call**", found["seconds"], ""))
    lines.append(line("under the profiler", found["watched"], "of which"))
    for kind, seconds in found["kinds"].items():
        lines.append(line(f"- {kind}", seconds, f"{seconds / found['watched']:.0%}"))
    for name, seconds in found["operators"].items():
        lines.append(line(f"  - `{name}`", seconds, _kind(name)))
    flops, peak = found["flops"] / 1e9, found["peak"] / 1e9
    weights, bandwidth = found["weight_bytes"] / 1e9, found["bandwidth"] / 1e9
    note = f"{flops:.2f} GFLOP at {peak:.0f} a second, {found['peak_dtype']}"
    lines.append(line("limit of products", found["product_limit"], note))
    note = f"{weights:.3f} GB at {bandwidth:.1f} a second"
    lines.append(line("limit of weights", found["weight_limit"], note))
    return "\n".join(lines)
