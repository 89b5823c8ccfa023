"""fairseq's ranks on our mesh: which batches a rank reads, and what the log counts."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from fairseq.distributed.utils import _TensorPlaceholder
from omegaconf import DictConfig, ListConfig
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.nodes import AnyNode
from torch import nn
from torch.distributed.tensor import DTensor

from mtmoe.config import AllToAll, CheckpointFormat, MeshConfig, MultitaskConfig, Zero
from mtmoe.errors import EXIT_FAILURE, ConfigError, LayoutError
from mtmoe.optim.tiled_adam import TiledAdam
from mtmoe.parallel.mesh import Mesh, make_mesh

logger = logging.getLogger(__name__)

# What rank 0's broadcast of a checkpoint holds beside tensors: settings, and fairseq's own mark.
torch.serialization.add_safe_globals(
    [
        Namespace,
        DictConfig,
        ListConfig,
        ContainerMetadata,
        Metadata,
        AnyNode,
        Any,
        defaultdict,
        dict,
        int,
        list,
        _TensorPlaceholder,
    ]
)


def start_mesh(config: MeshConfig, is_on_cpu: bool) -> Mesh:
    """The mesh of fairseq's ranks; says which options have no effect on it.

    Raises:
        LayoutError: the sizes do not divide the ranks, or fairseq was not told of the ranks.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not torch.distributed.is_initialized():
        raise LayoutError(
            f"distributed_training must name the {world} ranks that torchrun started, but does "
            "not. Use fairseq-train, or add the keys of docs/parallel.md to the YAML."
        )
    on_gpu = torch.cuda.is_available() and not is_on_cpu
    mesh = make_mesh(config, "cuda" if on_gpu else "cpu")
    if config.zero is not Zero.none and mesh.batch.size == 1 and not (mesh.has_host_parameters):
        logger.warning("zero %s has no effect: no two ranks hold the same parameter.", config.zero)
    if config.deduplicate_tokens and 1 in (mesh.owners.size, mesh.tensor.size):
        logger.warning(
            "deduplicate_tokens has no effect without expert_parallel_size and "
            "tensor_parallel_size above 1."
        )
    for name in ("shard_tokens", "whole_experts"):
        if getattr(config, name) and mesh.tensor.size == 1:
            logger.warning("%s has no effect without tensor_parallel_size above 1.", name)
    if config.all_to_all is AllToAll.hierarchical and mesh.steps is None:
        logger.warning(
            "all_to_all hierarchical has no effect where the ranks that share the experts out are "
            "all on one node, or each on its own (see node_size)."
        )
    return mesh


def share_of_rank(mesh: Mesh, settings: Mapping[str, Any]) -> dict[str, int]:
    """`num_shards` and `shard_id` of fairseq's, where a tensor group reads the same batches."""
    tensor = mesh.tensor.size
    return {
        "num_shards": max(settings.get("num_shards", 1) // tensor, 1),
        "shard_id": settings.get("shard_id", 0) // tensor,
    }


def count_once(mesh: Mesh, logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sums over all ranks as sums over batches, which each rank of a tensor group has logged."""
    tensor = mesh.tensor.size
    if tensor == 1:
        return logs
    return [{key: value / tensor for key, value in log.items()} for log in logs]


@contextlib.contextmanager
def ending_without_memory(mesh: Mesh) -> Iterator[None]:
    """End a rank that runs out of memory, with one sentence, where several train.

    fairseq would leave the batch out and go on, and the others would wait for the rank for ever.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        signs = ("out of memory", "can't allocate memory")
        is_full = isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)
        if mesh.devices is None or not is_full:
            raise
        reason = (str(error) or "no memory left").splitlines()[0]
        sys.stderr.write(
            f"error: rank {torch.distributed.get_rank()} has too little memory ({reason}). Lower "
            "--max-tokens, or see docs/memory.md.\n"
        )
        raise SystemExit(EXIT_FAILURE) from None


def check_saving(mesh: Mesh, config: MultitaskConfig, cfg: Any) -> None:
    """Refuse what fairseq would save from rank 0 alone, or not into the folder of shards.

    Raises:
        LayoutError: names the option.
    """
    is_shared = mesh.devices is not None
    is_sharded = config.checkpoint_format is CheckpointFormat.sharded
    for name in ("no_save_optimizer_state", "store_ema"):
        if (is_shared or is_sharded) and getattr(cfg, name):
            where = "several ranks hold the model" if is_shared else "checkpoint_format is sharded"
            raise LayoutError(
                f"{name} must be off where {where}, but is on: fairseq would save rank 0's part "
                "only. Leave it out."
            )


def check_optimizer(model: nn.Module, optimizer: Any, checkpoints: CheckpointFormat) -> None:
    """Refuse an optimizer that knows nothing of parameters of which each rank holds a part.

    Raises:
        LayoutError: names the one to use.
    """
    if isinstance(optimizer.optimizer, TiledAdam):  # also under fairseq's wrappers of float16
        return
    is_shared_out = any(isinstance(parameter, DTensor) for parameter in model.parameters())
    if is_shared_out or checkpoints is CheckpointFormat.sharded:
        where = "ranks share parameters out" if is_shared_out else "checkpoint_format is sharded"
        name = getattr(optimizer.cfg, "_name", None) or type(optimizer).__name__
        raise LayoutError(
            f"optimizer must be fused_adam where {where}, but is {name}: fairseq's know no shards. "
            "Use --optimizer fused_adam."
        )


def check_precision(mesh: Mesh, cfg: Any) -> None:
    """Refuse fairseq's half-precision weights where they gain nothing, or know nothing of shards.

    Raises:
        ConfigError: names the option and what to use.
    """
    advice = "Use --bf16, under Hydra criterion.autocast=bfloat16."
    if cfg.bf16:
        raise ConfigError(
            "common.bf16 must be off under Hydra, but is on: fairseq would round the weights to "
            "bfloat16. Use criterion.autocast=bfloat16."
        )
    on_gpu = torch.cuda.is_available() and not cfg.cpu
    if cfg.fp16 and not (on_gpu or cfg.memory_efficient_fp16):
        raise ConfigError(
            f"fp16 must be off on a CPU, which is slow in float16, but is on. {advice}"
        )
    if cfg.fp16 and mesh.devices is not None:
        raise ConfigError(
            "fp16 must be off where several ranks hold the model, but is on: fairseq's copies of "
            f"the weights know no shards. {advice}"
        )
