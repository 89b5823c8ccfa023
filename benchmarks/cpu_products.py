"""Products of translating on a CPU: mtmoe's own (`mtmoe.ops.packed_linear`) over oneDNN's.

For a linear map of each size, as often as fits 64 MiB so that weights come from memory as in a
decoder, and for each number of rows: how many times as fast our product is, with all that
`FixedLinear` does around either; and `Int4Linear` beside our float32. One thread, medians, the two
in turn. Usage: `python -m benchmarks.cpu_products [--rounds N]`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from unittest import mock

import torch
from tqdm import tqdm

from benchmarks.machine import describe_commit, describe_machine, describe_versions, today
from benchmarks.timings import markdown_table
from mtmoe.config import WeightType
from mtmoe.errors import MtmoeError, run_command
from mtmoe.ops import fixed_linear
from mtmoe.ops.fixed_linear import FixedLinear
from mtmoe.ops.int4_linear import Int4Linear
from mtmoe.ops.packed_linear import can_pack

SIZES = ((512, 512), (512, 2048), (2048, 512), (512, 32000))  # K, N
ROWS = (1, 4, 8, 16, 32, 64, 256)
MEMORY = 64 << 20  # bytes of float32 weights, more than caches hold

Maps = Sequence[FixedLinear] | Sequence[Int4Linear]


@torch.inference_mode()
def main() -> None:
    """Measure, and write a table to standard output."""
    parser = argparse.ArgumentParser(prog="benchmarks.cpu_products", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of which medians are taken")
    rounds: int = parser.parse_args().rounds
    torch.set_num_threads(1)
    kinds = [kind for kind in WeightType if can_pack(kind)]
    if not kinds:
        raise MtmoeError("this machine has no product of our own: it takes AVX-512 and cc.")
    cells = [(size, kind) for size in SIZES for kind in (*kinds, None)]
    lines = []
    for (K, N), kind in tqdm(cells, disable=None):
        name = "int4, over our float32" if kind is None else f"{kind}, over oneDNN's"
        ratios = compare(*make_maps(K, N, kind), rounds)
        lines.append([f"{K} x {N}", name, *(f"{ratio:.2f}" for ratio in ratios)])
    head = ["K x N", "product", *(f"{M} rows" for M in ROWS)]
    where = f"{describe_machine()}, {describe_versions(['torch'])}"
    sys.stdout.write(f"{today()}, commit {describe_commit()}. {where}\n\n")
    sys.stdout.write(markdown_table(head, lines) + "\n")


def make_maps(K: int, N: int, kind: WeightType | None) -> tuple[Maps, Maps]:
    """Maps to measure, and those beside them.

    Args:
        kind: None: int4 beside our float32.
    """
    weights = [torch.randn(N, K) / K**0.5 for _ in range(max(MEMORY // (4 * K * N), 1))]
    own = [FixedLinear(weight, None, kind or WeightType.float32) for weight in weights]
    if kind is None:
        return [Int4Linear(weight, None) for weight in weights], own
    with mock.patch.object(fixed_linear, "can_pack", return_value=False):
        return own, [FixedLinear(weight, None, kind) for weight in weights]


def compare(own: Maps, other: Maps, rounds: int) -> list[float]:
    """For each number of `ROWS`, the time of `other` over that of `own`."""
    ratios = []
    for M in ROWS:
        x = torch.randn(M, own[0].in_features)
        times: tuple[list[float], list[float]] = [], []
        for number in range(rounds + 1):
            for maps, taken in zip((own, other), times, strict=True):
                start = time.perf_counter()
                for each in maps:
                    each(x)
                if number:  # the first one warms up
                    taken.append(time.perf_counter() - start)
        ratios.append(statistics.median(times[1]) / statistics.median(times[0]))
    return ratios


if __name__ == "__main__":
    sys.exit(run_command(main))
