"""fairseq's ranks on our mesh: which batches a rank reads, and what the log counts."""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from fairseq.distributed.utils import _TensorPlaceholder
from omegaconf import DictConfig, ListConfig
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.nodes import AnyNode

from mtmoe.config import AllToAll, MeshConfig, Zero
from mtmoe.errors import LayoutError
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


def check_saving(mesh: Mesh, cfg: Any) -> None:
    """Refuse what fairseq would save from rank 0 alone.

    Raises:
        LayoutError: names the option.
    """
    for name in ("no_save_optimizer_state", "store_ema"):
        if mesh.devices is not None and getattr(cfg, name):
            raise LayoutError(
                f"{name} must be off where several ranks hold the model, but is on: fairseq would "
                "save rank 0's part only. Leave it out."
            )
