"""The settings of catalog50: sizes and layouts of its trainings, without their memory."""

from __future__ import annotations

import importlib.util
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from data_prep.config import load_config
from mtmoe.config import MultitaskConfig, TransformerConfig
from mtmoe.data.vocabulary import PAD
from mtmoe.modules.transformer import Transformer
from mtmoe.parallel.mesh import make_mesh
from mtmoe.parallel.plan import parallelize
from mtmoe.parallel.slices import stored_part

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes/catalog50"
TRAININGS = {  # name -> vocabulary, ranks, all parameters, those of one rank
    "train": (16_000, 1, 14.65e6, 14.65e6),
    "train-8gpu": (16_000, 8, 2.61e9, 0.3263e9),
    "train-10b": (128_000, 32, 10.15e9, 0.3173e9),
}


def test_the_text_has_fifty_languages_and_more():
    config = load_config(RECIPE / "data.yaml")
    assert len(config.languages) >= 50
    assert config.gettext.packages is None, "all packages"
    assert config.debian is not None


def compose(name):
    """What fairseq-hydra-train makes of a YAML of the recipe."""
    spec = importlib.util.spec_from_file_location("settings", ROOT / "recipes/check_settings.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program.compose(RECIPE, [], name)[1]


def count_parameters(config, task, vocab_size, num_ranks):
    """Parameters of all ranks and of the first, of a network that is sharded without memory."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=num_ranks, store=FakeStore())
    mesh = make_mesh(task.mesh)
    with torch.device("meta"):
        model = Transformer(config, vocab_size, PAD, mesh=mesh)
        whole = sum(p.numel() for p in model.parameters())
    if num_ranks > 1:
        parallelize(model, [*model.encoder, *model.decoder], mesh, task.mesh.zero)
    return whole, sum(stored_part(p).numel() for p in model.parameters())


@pytest.mark.filterwarnings("ignore")  # of fairseq's own import
@pytest.mark.parametrize("name", TRAININGS)
def test_trainings_have_their_sizes_on_their_layouts(name, monkeypatch):
    from mtmoe.fairseq_view import core_config

    vocab_size, num_ranks, *expected = TRAININGS[name]
    for variable, value in (("WORLD_SIZE", num_ranks), ("RANK", 0), ("LOCAL_RANK", 0)):
        monkeypatch.setenv(variable, str(value))
    whole = compose(name)
    config = core_config(TransformerConfig, whole["model"])
    task = core_config(MultitaskConfig, whole["task"])
    assert whole["task"]["_name"] == "multitask_translation"
    assert "title" in task.sampling.task_mix
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        found = pool.submit(count_parameters, config, task, vocab_size, num_ranks).result()
    assert found == pytest.approx(expected, rel=0.01)
    if num_ranks > 1:
        assert whole["distributed_training"]["distributed_world_size"] == num_ranks
    if name == "train-10b":
        layers = (config.encoder_layers, config.decoder_layers, len(config.moe_layer_names))
        assert layers == (24, 12, 18)
        assert (config.embed_dim, config.ffn_dim, config.router.num_experts) == (1024, 4096, 64)
