"""CTranslate2 gives the greedy translations of the model that it was made of."""

from __future__ import annotations

import pytest
import torch

from mtmoe.checkpoint.fairseq_file import load_checkpoint, write_checkpoint
from mtmoe.cli.main import main
from mtmoe.data.batching import source_tags, tag_source
from mtmoe.inference.constraints import LIMIT_EXTRA, LIMIT_FACTOR
from mtmoe.inference.engine import Translator
from mtmoe.interop.one_expert import as_dense
from mtmoe.surgery.prune import prune_checkpoint
from mtmoe.surgery.scratch import Scratch
from tests.inference.tiny_model import write_tiny_checkpoint
from tests.interop.foreign_models import real_lines

SOURCE, TARGET = torch.tensor([[4, 9, 8, 2], [5, 6, 2, 1]]), torch.tensor([[5, 6, 7], [6, 6, 8]])
CONFIGS = {
    "dense": dict(moe_every=0),
    "gelu": dict(moe_every=0, activation="gelu", first_position=2),
    "swiglu": dict(moe_every=0, activation="swiglu"),
    "one_expert": dict(moe_every=1),
    "one_expert_and_shared": dict(moe_every=2, shared_ffn_dim=8),
}


def checkpoint_of(folder, name):
    """A dense checkpoint, or one that was pruned to one expert a layer."""
    path = write_tiny_checkpoint(folder, max_positions=256, **CONFIGS[name])
    checkpoint = load_checkpoint(path)
    layers = checkpoint.config.moe_layer_names
    if layers:
        kept = [torch.tensor([1])] * len(layers)
        write_checkpoint(path, prune_checkpoint(checkpoint, kept, Scratch(folder)))
    return path


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_one_expert_is_a_dense_model(tmp_path, name):
    checkpoint = load_checkpoint(checkpoint_of(tmp_path, name))
    dense = as_dense(checkpoint)
    assert not dense.config.moe_layer_names
    expected, found = (c.build_model()(SOURCE, TARGET).states for c in (checkpoint, dense))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_experts_are_refused(tmp_path, capsys):
    path = write_tiny_checkpoint(tmp_path)
    command = ["convert", str(path), "--to", "ctranslate2", "--output", str(tmp_path / "out")]
    assert main(command) == 2
    assert "Use mtmoe prune --keep 1 first" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_translations_are_the_same(tmp_path, name):
    ctranslate2 = pytest.importorskip(
        "ctranslate2", reason="needs ctranslate2: pip install 'mtmoe[ctranslate2]'"
    )
    path = checkpoint_of(tmp_path, name)
    out = str(tmp_path / "out")
    assert main(["convert", str(path), "--to", "ctranslate2", "--output", out]) == 0
    translator = Translator(load_checkpoint(path))
    vocabulary = translator.vocabulary
    tags = source_tags(vocabulary, translator.encoder_tags, "en", "de")
    theirs = ctranslate2.Translator(out, device="cpu", intra_threads=1)
    never = [[s] for s in ("<s>", "<pad>", "<unk>", *vocabulary.symbols[-3:])]
    found = []
    for ids in vocabulary.encode(real_lines()):
        source = [vocabulary.symbols[i] for i in tag_source(tags, ids)]
        result = theirs.translate_batch(
            [source], target_prefix=[["__de__"]], beam_size=1, suppress_sequences=never,
            max_decoding_length=LIMIT_FACTOR * len(source) + LIMIT_EXTRA,
        )  # fmt: skip
        found.append([vocabulary.index[piece] for piece in result[0].hypotheses[0]])
    ours = translator.translate(real_lines(), "en", "de", beam=1)
    same = [a == b.strip() for a, b in zip(ours, vocabulary.decode(found), strict=True)]
    assert sum(same) >= 0.99 * len(same)
