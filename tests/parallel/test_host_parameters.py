"""Parameters in host memory train bit by bit as those on the device; on CPUs, both are the same."""

from __future__ import annotations

import pytest
import torch
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule

from mtmoe.config import AdamConfig, CheckpointActivations, MeshConfig, StateLocation, Zero
from mtmoe.errors import ConfigError, LayoutError
from mtmoe.modules.experts import Experts
from mtmoe.optim.tiled_adam import TiledAdam
from mtmoe.parallel.gradients import gradient_norm, reduce_gradients
from mtmoe.parallel.mesh import make_mesh
from mtmoe.parallel.slices import stored_part
from tests.modules.layout_cells import config_of, loss_of, make_model
from tests.ranks import run_ranks


def train(sizes, zero, location):
    """Three updates of Adam; returns norms and what this rank holds."""
    mesh = make_mesh(MeshConfig(sizes[1], sizes[2], zero, parameter_location=location))
    model = make_model(config_of("rts", CheckpointActivations.none), mesh, zero)
    optimizer, norms = TiledAdam(model.parameters(), AdamConfig(), lr=0.01), []
    for update in range(3):
        loss_of(model, mesh.batch.rank, update, mesh.batch.size).backward()
        reduce_gradients(model.parameters(), mesh)
        norms.append(gradient_norm(model.parameters(), mesh))
        optimizer.step()
        optimizer.zero_grad()
    return model, norms


def check(sizes, zero):
    model, norms = train(sizes, zero, StateLocation.host)
    wrapped = [m for m in model.modules() if isinstance(m, FSDPModule)]
    assert sum(isinstance(m, Experts) for m in wrapped) == 2, "experts as well"
    for module in wrapped:
        group = module._get_fsdp_state()._fsdp_param_group
        assert group is None or isinstance(group.offload_policy, CPUOffloadPolicy)
    resident, expected = train(sizes, zero, StateLocation.device)
    assert torch.equal(torch.stack(norms), torch.stack(expected))
    for ours, theirs in zip(model.parameters(), resident.parameters(), strict=True):
        found, reference = stored_part(ours).flatten(), stored_part(theirs).flatten()
        assert torch.equal(found, reference)


@pytest.mark.parametrize("zero", [Zero.gradients, Zero.parameters])
@pytest.mark.parametrize("sizes", [(2, 1, 1), (1, 2, 2)])
def test_parameters_on_the_host_train_the_same_bits(sizes, zero):
    run_ranks(check, sizes[0] * sizes[1] * sizes[2], sizes, zero)


def test_what_cannot_be_on_the_host_is_refused():
    with pytest.raises(ConfigError, match="parameter_location must be device without zero, but"):
        MeshConfig(2, parameter_location=StateLocation.host)
    config = MeshConfig(zero=Zero.gradients, parameter_location=StateLocation.host)
    with pytest.raises(LayoutError, match="device in one process, but is host"):
        make_mesh(config)
