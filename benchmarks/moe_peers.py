"""The MoE layers of other libraries; runs in the environment that benchmarks/peers.sh makes.

All are dropless, without noise, with ReLU. The libraries are imported by name when a row is built:
they are not installed beside mtmoe.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.moe_cell import Cell, cell_of, make_calls, make_model
from benchmarks.worker import Call, NotRunnable

GIB = 2**30
sys.modules.setdefault("torchaudio", None)  # type: ignore[arg-type]  # transformers must not load it


def build_huggingface(options: dict[str, Any]) -> dict[str, Call]:
    """The sparse MLP of SwitchTransformers (top-1, no biases) or NLLB-MoE (top-2).

    Raises:
        NotRunnable: another top-k, or NLLB-MoE would not fit into memory.
    """
    cell = cell_of(options)
    if cell.top_k > 2:
        raise NotRunnable("Hugging Face has sparse MLPs for top-1 (Switch) and top-2 (NLLB-MoE)")
    model = _make_switch(cell) if cell.top_k == 1 else _make_nllb(cell)
    return make_calls(model, cell, model)


def _make_switch(cell: Cell) -> nn.Module:
    name = "transformers.models.switch_transformers"
    config = import_module(name).SwitchTransformersConfig(
        d_model=cell.dim,
        d_ff=cell.ffn_dim,
        num_experts=cell.experts,
        expert_capacity=cell.tokens,
        router_jitter_noise=0.0,
        dropout_rate=0.0,
        dense_act_fn="relu",
    )
    layer = import_module(f"{name}.modeling_switch_transformers").SwitchTransformersSparseMLP
    return make_model(lambda: layer(config), cell, "router.classifier.weight")


def _make_nllb(cell: Cell) -> nn.Module:
    _check_nllb_memory(cell)
    name = "transformers.models.nllb_moe"
    config = import_module(name).NllbMoeConfig(
        d_model=cell.dim,
        num_experts=cell.experts,
        expert_capacity=cell.tokens,
        moe_eval_capacity_token_fraction=1.0,
        moe_token_dropout=0.0,
        activation_dropout=0.0,
        activation_function="relu",
        second_expert_policy="all",
        router_bias=False,
    )
    layer = import_module(f"{name}.modeling_nllb_moe").NllbMoeSparseMLP
    return make_model(lambda: layer(config, cell.ffn_dim), cell, "router.classifier.weight")


def _check_nllb_memory(cell: Cell) -> None:
    """transformers 5 sends tokens * (experts - 1) rows to its expert 0 (a bug; PERFORMANCE.md)."""
    size = cell.torch_dtype.itemsize
    rows = cell.tokens * (cell.experts - 1)
    needed = rows * (3 * cell.ffn_dim + 4 * cell.dim) * size + 8 * rows * cell.experts
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > 0.6 * free:
        raise NotRunnable(
            f"NLLB-MoE sends {rows} rows to its first expert, which needs {needed / GIB:.0f} GiB "
            f"of memory where {free / GIB:.0f} are free"
        )


class _RoutedExperts(nn.Module):
    """A router as Hugging Face's top-k models have it, before experts of theirs."""

    def __init__(self, experts: nn.Module, cell: Cell) -> None:
        super().__init__()
        self.router = nn.Linear(cell.dim, cell.experts, bias=False)
        self.experts, self.top_k = experts, cell.top_k

    def forward(self, x: Tensor) -> Tensor:
        flat = x.view(-1, x.shape[-1])
        probs = self.router(flat).softmax(-1, dtype=torch.float32)
        weight, expert = probs.topk(self.top_k, dim=-1)  # (T, K)
        if self.top_k > 1:
            weight = weight / weight.sum(-1, keepdim=True)
        out: Tensor = self.experts(flat, expert, weight.to(x.dtype))
        return out.view_as(x)


def build_huggingface_grouped(options: dict[str, Any]) -> dict[str, Call]:
    """Hugging Face's stacked experts by `grouped_mm`: NemotronH's, without gate and biases."""
    cell = cell_of(options)
    name = "transformers.models.nemotron_h"
    config = import_module(name).NemotronHConfig(
        hidden_size=cell.dim,
        moe_intermediate_size=cell.ffn_dim,
        n_routed_experts=cell.experts,
        moe_latent_size=None,
        mlp_hidden_act="relu",
    )
    config._experts_implementation = "grouped_mm"
    experts = import_module(f"{name}.modeling_nemotron_h").NemotronHExperts
    model = make_model(lambda: _RoutedExperts(experts(config), cell), cell, "router.weight")
    return make_calls(model, cell, model)


def build_deepspeed(options: dict[str, Any]) -> dict[str, Call]:
    """deepspeed.moe.layer.MoE on one rank."""
    cell = cell_of(options)
    _set_up_deepspeed()
    layer = import_module("deepspeed.moe.layer").MoE
    _join_group_of_one()
    D, width = cell.dim, cell.ffn_dim

    def make() -> nn.Module:
        expert = nn.Sequential(nn.Linear(D, width), nn.ReLU(), nn.Linear(width, D))
        found: nn.Module = layer(
            D,
            expert,
            cell.experts,
            k=cell.top_k,
            drop_tokens=False,
            use_rts=False,
            top2_2nd_expert_sampling=False,
        )
        return found

    model = make_model(make, cell, "deepspeed_moe.gate.wg.weight")
    model.set_deepspeed_parallelism()  # type: ignore[operator]
    return make_calls(model, cell, lambda x: model(x)[0])


def _set_up_deepspeed() -> None:
    """It compiles its CPU collectives at first use: by the environment's tools, kept in there."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ["TORCH_EXTENSIONS_DIR"] = str(Path(sys.prefix) / "torch_extensions")
    tools = str(Path(sys.prefix) / "bin")
    if tools not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join((tools, os.environ["PATH"]))


def _join_group_of_one() -> None:
    if not torch.distributed.is_initialized():
        store = import_module("torch.distributed").HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        import_module("deepspeed").init_distributed("gloo", verbose=False)
