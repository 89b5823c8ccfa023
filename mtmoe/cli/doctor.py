"""`mtmoe doctor`: does this layout of ranks train as one process does? Run it under torchrun."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from enum import Enum
from typing import Any

from mtmoe.config import (
    NAMED_SIZES,
    AdamConfig,
    MeshConfig,
    TransformerConfig,
    build_config,
    flat_fields,
)
from mtmoe.errors import EXIT_FAILURE, ConfigError

TAKES_OTHER_OPTIONS = True  # those of fairseq-train that the examination does not need
SETTINGS = (MeshConfig, TransformerConfig, AdamConfig)
TOLERANCE = 1e-9  # in float64
MODEL = "moe_transformer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command: the layout, and whatever fairseq-train is given."""
    parser.epilog = (
        "Example: torchrun --nproc_per_node 4 $(which mtmoe) doctor --cpu "
        "--expert-parallel-size 2 --tensor-parallel-size 2. Further options are those of the "
        "training; the model is scaled down, and dropout is off."
    )
    parser.allow_abbrev = False  # an option of fairseq's is not short for one of ours
    parser.add_argument("--arch", "-a", default=MODEL, metavar="NAME", help="named size")
    parser.add_argument("--cpu", action="store_true", help="use CPUs though there are GPUs")
    parser.add_argument("--updates", type=int, default=3, metavar="N", help="updates to compare")
    for config in SETTINGS:
        for name, item in flat_fields(config).items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(item.default, bool):
                parser.add_argument(option, action="store_true", help=item.metadata["help"])
            else:
                kind = type(item.default)
                parser.add_argument(
                    option, type=str if issubclass(kind, Enum) else kind, help=item.metadata["help"]
                )


def run(args: argparse.Namespace) -> None:
    """Examine, and write what was found to standard output of rank 0.

    Raises:
        ConfigError: a wrong option value.
        LayoutError: the layout does not fit the ranks or the model.
        SystemExit: with code 1, where the layout does not agree with one process.
    """
    if args.updates < 1:
        raise ConfigError(f"--updates must be at least 1, but is {args.updates}. Give 1 or more.")
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        raise ConfigError(
            "doctor must run on several ranks, but there is one. Start it by "
            "torchrun --nproc_per_node 2 $(which mtmoe) doctor."
        )
    values = _values(args)
    mesh, model, adam = (build_config(config, values) for config in SETTINGS)
    assert isinstance(mesh, MeshConfig)
    assert isinstance(model, TransformerConfig)
    assert isinstance(adam, AdamConfig)

    _tell_overlooked(args.others)

    import torch
    import torch.distributed as dist

    on_gpu = torch.cuda.is_available() and not args.cpu
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        agrees = _examine(mesh, model, adam, "cuda" if on_gpu else "cpu", args)
    finally:
        dist.destroy_process_group()
    if not agrees:
        raise SystemExit(EXIT_FAILURE)


def _tell_overlooked(words: Sequence[str]) -> None:
    """Name the options that are not part of the examination: one may be misspelt."""
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    if options and os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"not examined, as it is none of doctor's: {', '.join(options)}\n")


def _values(args: argparse.Namespace) -> dict[str, Any]:
    """The settings: those of the named size, and over them what the command line gives."""
    sizes = {MODEL + suffix: values for suffix, values in NAMED_SIZES.items()}
    if args.arch not in sizes:
        raise ConfigError(f"--arch must be one of {', '.join(sizes)}, but is {args.arch}.")
    given = {name: value for name, value in vars(args).items() if value is not None}
    return sizes[args.arch] | given


def _examine(
    layout: MeshConfig, config: TransformerConfig, adam: AdamConfig, device: str, args: Any
) -> bool:
    import torch
    import torch.distributed as dist

    from mtmoe.modules.transformer import Transformer
    from mtmoe.parallel.mesh import make_mesh
    from mtmoe.report.layout_check import examine, scale_down

    mesh = make_mesh(layout, device)
    with torch.device("meta"):  # refuses what does not divide, at its full size
        Transformer(config, 8, 1, num_languages=3, mesh=mesh)
    worst, traffic = examine(scale_down(config, layout), adam, mesh, layout.zero, args.updates)
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, worst)
    worst = {name: max(rank[name] for rank in found) for name in worst}
    agrees = max(worst.values()) <= TOLERANCE
    if dist.get_rank() == 0:
        shape = f"data {mesh.data.size} x expert {mesh.expert.size} x tensor {mesh.tensor.size}"
        lines = [f"{name}: largest difference {value:.1e}" for name, value in worst.items()]
        lines += [
            f"{kind}: {count} calls, {traffic.sent_bytes[kind]} bytes sent by rank 0 in an update"
            for kind, count in sorted(traffic.calls.items())
        ]
        verdict = "agrees" if agrees else "does not agree"
        lines.append(
            f"{shape} {verdict} with one process: largest difference {max(worst.values()):.1e}, "
            f"{TOLERANCE:.0e} allowed."
        )
        sys.stdout.write("\n".join(lines) + "\n")
    return agrees
