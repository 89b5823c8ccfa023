"""Time of each Triton kernel on a GPU, beside what bounds it and beside torch's `grouped_mm`.

The bound is the larger of bytes over the bandwidth of a large copy, and operations over the rate of
a large matrix product, both measured first; bytes count each tensor once. "busy" is what the
kernels of a step take, without the gaps between them, with the L2 cache emptied before each run;
"eager" is the median from first to last, gaps included: steps of many small kernels wait for the
host there. `grouped_mm` only multiplies: bias and activation, which our kernels add, are not in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import describe_commit, describe_device, describe_versions, today
from benchmarks.moe_cell import DTYPES
from benchmarks.options import check_gpu, read_number
from benchmarks.timings import markdown_table
from mtmoe.cli.main import Parser
from mtmoe.config import Activation
from mtmoe.errors import ConfigError, run_command

if TYPE_CHECKING:
    from mtmoe.ops.dispatch import Permutation
    from mtmoe.ops.triton.tiles import TileMap

COPY_BYTES = 2**31
FLUSH_BYTES = 2**28  # more than any L2 cache holds
FLUSH = "Memcpy DtoD"  # what the profiler calls that copy
REPEATS = 20  # runs of which the busy time is the mean
PRODUCT_SIZE = 8192
MILLISECONDS = 100  # of runs, each step
Step = Callable[[], object]


@dataclass(frozen=True)
class Sizes:
    """T tokens with K choices among E experts; widths D of the model, F of an expert."""

    T: int
    K: int
    E: int
    D: int
    F: int
    dtype: torch.dtype

    @property
    def R(self) -> int:  # noqa: N802
        """Rows of all experts."""
        return self.T * self.K


@dataclass(frozen=True)
class Limits:
    """What the device does at best, measured."""

    bytes_per_second: float
    operations_per_second: float

    def seconds(self, num_bytes: float, num_operations: float) -> float:
        """The least time for so much."""
        by_memory = num_bytes / self.bytes_per_second
        return max(by_memory, num_operations / self.operations_per_second)


@dataclass(frozen=True)
class Measured:
    """One step: its time, bound, and the time of `grouped_mm` for the same product."""

    step: str
    busy: float
    eager: float
    bound: float
    grouped_mm: float | None = None


def main() -> None:
    """Print the table for the sizes of the command line."""
    parser = Parser("python -m benchmarks.gpu_kernels", description=__doc__)
    defaults = {"tokens": "8192", "top-k": "1", "experts": "64", "dim": "1024", "ffn-dim": "4096"}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", default=value, metavar="N")
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    args = vars(parser.parse_args(sys.argv[1:]))
    dtype = getattr(torch, args.pop("dtype"))
    T, K, E, D, F = (read_number(name, word) for name, word in args.items())
    if K > E:
        raise ConfigError(f"--top-k must be at most --experts ({E}), but is {K}.")
    check_gpu()
    sizes = Sizes(T, K, E, D, F, dtype)
    limits = measure_limits(dtype)
    lines = [
        f"- Triton kernels, {sizes}",
        f"- machine: {describe_device('cuda')}",
        f"- versions: {describe_versions(['torch', 'triton'])}, mtmoe commit {describe_commit()}",
        f"- copy: {limits.bytes_per_second / 1e12:.2f} TB/s read and written; product of "
        f"{PRODUCT_SIZE}: {limits.operations_per_second / 1e12:.0f} TFLOPS; date: {today()}",
    ]
    sys.stdout.write("\n".join(lines) + "\n\n" + to_markdown(measure(sizes, limits)) + "\n")


def seconds_of(step: Step) -> float:
    """The median time of a step on the device, from its first kernel to its last."""
    from triton.testing import do_bench

    found: float = do_bench(step, warmup=25, rep=MILLISECONDS, return_mode="median")
    return found / 1e3


def busy_seconds(step: Step) -> float:
    """The sum of the times of a step's kernels, the mean of `REPEATS` runs."""
    cache = torch.empty(2, FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    step()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(REPEATS):
            cache[0].copy_(cache[1])
            step()
        torch.cuda.synchronize()
    events = [event for event in profiler.key_averages() if not event.key.startswith(FLUSH)]
    total: float = sum(event.self_device_time_total for event in events)
    return total / 1e6 / REPEATS


def measure_limits(dtype: torch.dtype) -> Limits:
    """A copy far larger than the cache, and a product that fills the device; without TF32."""
    source = torch.randint(256, (COPY_BYTES,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    bandwidth = 2 * COPY_BYTES / seconds_of(lambda: target.copy_(source))
    a = torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device="cuda").to(dtype)
    b, out = torch.randn_like(a), torch.empty_like(a)
    rate = 2 * PRODUCT_SIZE**3 / seconds_of(lambda: torch.mm(a, b, out=out))
    return Limits(bandwidth, rate)


def measure(sizes: Sizes, limits: Limits) -> list[Measured]:
    """All steps of an MoE layer with ReLU, forward and backward."""
    from mtmoe.ops.triton.permute import combine, permute, sum_choices
    from mtmoe.ops.triton.routing import assign_slots, sort_by_expert

    T, K, E, D, dtype = sizes.T, sizes.K, sizes.E, sizes.D, sizes.dtype
    generator = torch.Generator("cuda").manual_seed(1)
    scores = torch.rand(T, E, device="cuda", generator=generator)
    expert = scores.topk(K).indices
    slot = torch.zeros_like(expert)
    order = sort_by_expert(expert, slot, E)
    x = torch.randn(T, D, device="cuda", generator=generator).to(dtype)
    weight = torch.rand(T, K, device="cuda", generator=generator).requires_grad_()
    rows = permute(x, order).requires_grad_()
    y = combine(rows, weight, order)
    moved = (T + sizes.R) * D * dtype.itemsize

    def combine_backward() -> object:
        return torch.autograd.grad(y, (rows, weight), x, retain_graph=True)

    def step(name: str, run: Step, num_bytes: float) -> Measured:
        return time_step(name, run, limits.seconds(num_bytes, 0))

    return [
        step("slots, with a capacity", lambda: assign_slots(expert, E, T // E), 16 * sizes.R),
        step("order by expert", lambda: sort_by_expert(expert, slot, E), 24 * sizes.R),
        step("permute", lambda: permute(x, order), moved),
        *measure_products(sizes, limits, rows.detach(), order),
        step("combine", lambda: combine(rows, weight, order), moved),
        step("combine, backward", combine_backward, moved + sizes.R * D * dtype.itemsize),
        step("permute, backward", lambda: sum_choices(x, None, order.row), moved),
    ]


@dataclass(frozen=True)
class Drawn:
    """Weights, rows and gradients of the experts' products; R rows in the order of experts."""

    rows: Tensor  # (R, D)
    hidden: Tensor  # (R, F), after the ReLU
    grad: Tensor  # (R, D) of what the experts give
    w_in: Tensor  # (E, D, F)
    b_in: Tensor  # (E, F)
    w_out: Tensor  # (E, F, D)
    b_out: Tensor  # (E, D)

    @staticmethod
    def of(sizes: Sizes, rows: Tensor) -> Drawn:
        """Random numbers."""
        R, E, D, F, dtype = sizes.R, sizes.E, sizes.D, sizes.F, sizes.dtype
        return Drawn(
            rows=rows,
            w_in=draw(E, D, F, dtype=dtype), w_out=draw(E, F, D, dtype=dtype),
            b_in=draw(E, F, dtype=dtype), b_out=draw(E, D, dtype=dtype),
            hidden=draw(R, F, dtype=dtype).relu(), grad=draw(R, D, dtype=dtype),
        )  # fmt: skip


@dataclass(frozen=True)
class Clock:
    """Times steps of `sizes`, beside their bounds and `grouped_mm`."""

    sizes: Sizes
    limits: Limits
    ends: Tensor  # (E,) int32 where each expert's rows end

    @property
    def narrow(self) -> int:
        """Bytes of (R, D)."""
        return self.sizes.R * self.sizes.D * self.sizes.dtype.itemsize

    @property
    def wide(self) -> int:
        """Bytes of (R, F)."""
        return self.sizes.R * self.sizes.F * self.sizes.dtype.itemsize

    @property
    def once(self) -> int:
        """Bytes of a product: one matrix of each expert, what goes in and what comes out."""
        weights = self.sizes.E * self.sizes.D * self.sizes.F * self.sizes.dtype.itemsize
        return weights + self.narrow + self.wide

    def product(
        self, name: str, run: Step, other: tuple[Tensor, Tensor], more_bytes: int = 0
    ) -> Measured:
        """Time a product; `other` are the operands for `grouped_mm`."""
        operations = 2 * self.sizes.R * self.sizes.D * self.sizes.F
        bound = self.limits.seconds(self.once + more_bytes, operations)
        return time_step(name, run, bound, self._grouped(*other))

    def plain(self, name: str, run: Step, num_bytes: int) -> Measured:
        """Time a step that multiplies nothing."""
        return time_step(name, run, self.limits.seconds(num_bytes, 0))

    def _grouped(self, a: Tensor, b: Tensor) -> float | None:
        """None where torch has no `grouped_mm` for the dtype."""
        if self.sizes.dtype != torch.bfloat16:
            return None
        return busy_seconds(lambda: torch._grouped_mm(a, b, offs=self.ends))


def measure_products(
    sizes: Sizes, limits: Limits, rows: Tensor, order: Permutation
) -> list[Measured]:
    """The steps between permute and combine."""
    from mtmoe.ops.triton.blocks import rows_per_tile
    from mtmoe.ops.triton.linear import grouped_linear
    from mtmoe.ops.triton.tiles import map_tiles

    height = rows_per_tile(sizes.dtype, sizes.R, sizes.E)
    tiles: TileMap = map_tiles(order.counts, sizes.R, height)
    drawn, clock = Drawn.of(sizes, rows), Clock(sizes, limits, order.counts.cumsum(0).int())
    hidden, w_in, w_out = drawn.hidden, drawn.w_in, drawn.w_out
    return [
        clock.plain(
            "table of tiles", lambda: map_tiles(order.counts, sizes.R, height), 8 * sizes.E
        ),
        clock.product(
            "first linear map, bias, ReLU",
            lambda: grouped_linear(rows, w_in, drawn.b_in, tiles, "relu"), (rows, w_in),
        ),
        clock.product(
            "second linear map, bias",
            lambda: grouped_linear(hidden, w_out, drawn.b_out, tiles), (hidden, w_out),
        ),
        *measure_gradients(clock, drawn, tiles),
    ]  # fmt: skip


def measure_gradients(clock: Clock, drawn: Drawn, tiles: TileMap) -> list[Measured]:
    """The backward pass of the same."""
    from mtmoe.ops.triton.hidden_gradient import hidden_gradient
    from mtmoe.ops.triton.linear import grouped_linear
    from mtmoe.ops.triton.weight_gradient import bias_gradient, weight_gradient

    rows, hidden, grad, w_out = drawn.rows, drawn.hidden, drawn.grad, drawn.w_out
    dtype, w_in_t = clock.sizes.dtype, drawn.w_in.transpose(1, 2)
    d_hidden = hidden_gradient(grad, w_out, hidden, None, tiles, Activation.relu).linear
    return [
        clock.product(
            "hidden gradient, ReLU",
            lambda: hidden_gradient(grad, w_out, hidden, None, tiles, Activation.relu),
            (grad, w_out.transpose(1, 2)), clock.wide,
        ),
        clock.product(
            "gradient of the rows",
            lambda: grouped_linear(d_hidden, w_in_t, None, tiles), (d_hidden, w_in_t),
        ),
        clock.product(
            "gradient of w_in",
            lambda: weight_gradient(rows, d_hidden, tiles, dtype), (rows.t(), d_hidden),
        ),
        clock.product(
            "gradient of w_out",
            lambda: weight_gradient(hidden, grad, tiles, dtype), (hidden.t(), grad),
        ),
        clock.plain("gradient of b_in", lambda: bias_gradient(d_hidden, tiles, dtype), clock.wide),
        clock.plain("gradient of b_out", lambda: bias_gradient(grad, tiles, dtype), clock.narrow),
    ]  # fmt: skip


def time_step(name: str, run: Step, bound: float, grouped_mm: float | None = None) -> Measured:
    """Time one step."""
    return Measured(name, busy_seconds(run), seconds_of(run), bound, grouped_mm)


def draw(*shape: int, dtype: torch.dtype) -> Tensor:
    """Small normal numbers: products on zeros are faster than on real ones."""
    return (0.04 * torch.randn(*shape, device="cuda")).to(dtype)


def to_markdown(found: Sequence[Measured]) -> str:
    """A line a step, in microseconds."""
    head = ["step", "busy, microseconds", "eager", "bound", "busy / bound"]
    head += ["grouped_mm, busy", "busy / grouped_mm"]
    lines = []
    for m in found:
        other = ["", ""]
        if m.grouped_mm is not None:
            other = [f"{m.grouped_mm * 1e6:.0f}", f"{m.busy / m.grouped_mm:.2f}"]
        times = [f"{seconds * 1e6:.1f}" for seconds in (m.busy, m.eager, m.bound)]
        lines.append([m.step, *times, f"{m.busy / m.bound:.2f}", *other])
    return markdown_table(head, lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
