"""Models whose decoder reads </s> before the tag: fairseq's programs start it so, unseen."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from mtmoe.config import DecoderStart, MultitaskConfig, TransformerConfig, build_config
from mtmoe.data.batching import lead_ids
from mtmoe.data.vocabulary import EOS, PAD
from mtmoe.errors import CheckpointError
from mtmoe.models.moe_transformer import MoeTransformer
from mtmoe.modules.transformer import Transformer
from mtmoe.tasks.multitask_translation import MultitaskTranslationTask
from mtmoe.tasks.start import check_start
from tests.inference.tiny_model import SIZES

CONFIG = build_config(TransformerConfig, SIZES)
SOURCE = torch.tensor([[9, 5, 6, 2], [9, 7, 2, PAD]])
READ = torch.tensor([[8, 4, 5], [8, 6, PAD]])  # the tag first


@pytest.fixture
def model():
    lead = lead_ids(DecoderStart.end_and_tag)
    return MoeTransformer(Transformer(CONFIG, 12, PAD, seed=1), torch.zeros(32), lead).eval()


def expected_logits(model):
    """By definition: </s> before each target, and what comes out at its place left out."""
    whole = torch.cat([torch.full((2, 1), EOS), READ], 1)
    return model.transformer.project(model.transformer(SOURCE, whole).states)[:, 1:]


@torch.no_grad()
def test_training_reads_the_end_symbol_first(model):
    logits = model(SOURCE, None, READ)[0]
    assert logits.shape == (2, 3, 12)
    assert_close(logits, expected_logits(model))
    assert model.max_positions() == (64, 63)


@torch.no_grad()
def test_generation_reads_it_once(model):
    encoded, state = model.encoder(SOURCE), {}
    expected = expected_logits(model)[:, :2]
    steps = [model.decoder(READ[:, : n + 1], encoded, state)[0] for n in range(2)]
    assert_close(torch.cat(steps, 1), expected)
    assert_close(model.decoder(READ[:, :2], encoded)[0], expected)
    assert model.max_decoder_positions() == model.decoder.max_positions() == 63


def test_the_task_follows_a_checkpoint_and_hands_it_on():
    task = MultitaskTranslationTask.__new__(MultitaskTranslationTask)
    task.state, task.config = None, MultitaskConfig()
    MultitaskTranslationTask.load_state_dict(task, {"decoder_start": "end_and_tag"})
    assert task.config.decoder_start is DecoderStart.end_and_tag
    MultitaskTranslationTask.load_state_dict(task, {})
    assert task.config.decoder_start is DecoderStart.tag


@pytest.mark.parametrize(
    ("section", "name", "value", "told"),
    [
        ("task_state", "decoder_start", "end_and_tag", "tag"),
        ("task_state", "encoder_tags", "source", "both"),
        ("model", "first_position", 2, "0"),
        ("model", "attention_heads", 4, "2"),
        ("model", "activation", "gelu", "relu"),
    ],
)
def test_training_does_not_start_with_other_settings(tmp_path, model, section, name, value, told):
    state = {"model": model.state_dict(), "cfg": {"model": {}}, "task_state": {}}
    (state["cfg"]["model"] if section == "model" else state["task_state"])[name] = value
    torch.save(state, tmp_path / "a.pt")
    flag = f"--{name.replace('_', '-')} {value}"
    with pytest.raises(CheckpointError, match=rf"{name} must be {value} as in .*{told}.*{flag}"):
        check_start(tmp_path / "a.pt", model, CONFIG, MultitaskConfig())
