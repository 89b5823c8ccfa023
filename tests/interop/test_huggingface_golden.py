"""Hugging Face's own answers, kept beside tiny models of theirs: equal here, without the oracle."""

from __future__ import annotations

import json

import pytest
import torch
from torch.testing import assert_close

from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.cli.main import main
from mtmoe.data.batching import source_tags, tag_source
from mtmoe.inference.beam_search import search
from mtmoe.inference.constraints import LIMIT_EXTRA, LIMIT_FACTOR
from mtmoe.inference.engine import Translator
from mtmoe.inference.hypotheses import Task
from mtmoe.inference.search_config import SearchConfig
from mtmoe.interop.huggingface_tokenizer import read_tokenizer
from mtmoe.interop.safetensors_file import read_header
from tests.inference.tiny_model import write_tiny_checkpoint
from tests.interop.foreign_models import LANGUAGES, padded_ids, real_lines
from tests.interop.golden.make import BEAMS, EXPECTED, FOLDERS, LINES, copy_folder

EOS = 2


@pytest.fixture(params=sorted(FOLDERS))
def golden(request, tmp_path):
    """The folder, our checkpoint of it, and their id of each of our symbols."""
    folder, path = FOLDERS[request.param], tmp_path / "ours.pt"
    assert main(["convert", str(folder), "--output", str(path)]) == 0
    checkpoint = load_checkpoint(path)
    return folder, path, read_tokenizer(folder, len(checkpoint.vocabulary.symbols)).order


@torch.no_grad()
def test_logits_are_theirs(golden):
    folder, path, order = golden
    expected = torch.tensor(json.loads((folder / EXPECTED).read_text())["logits"])
    ours_of = torch.tensor(order).argsort()
    source, target = (ours_of[ids] for ids in padded_ids(80))
    model = load_checkpoint(path).build_model()
    found = model.project(model(source, target).states)[: len(expected)]
    assert_close(found, expected[..., list(order)], atol=1e-5, rtol=0)


@pytest.mark.parametrize("beam", BEAMS)
def test_translations_are_theirs(golden, beam):
    folder, path, order = golden
    expected = json.loads((folder / EXPECTED).read_text())
    checkpoint = load_checkpoint(path)
    vocabulary, model = checkpoint.vocabulary, checkpoint.build_model()
    source_lang, target_lang = LANGUAGES[1], LANGUAGES[0]
    tags = source_tags(vocabulary, checkpoint.encoder_tags, source_lang, target_lang)
    forbidden = torch.tensor([0, 1, 3, *(vocabulary.tag(code) for code in vocabulary.languages)])
    tag = torch.tensor([vocabulary.tag(target_lang)])
    lines = [tag_source(tags, ids) for ids in vocabulary.encode(real_lines()[:LINES])]
    assert [[order[i] for i in ids] for ids in lines] == expected["ids"]
    for ids, theirs in zip(lines, expected["hypotheses"][str(beam)], strict=True):
        found = [
            order[i]
            for i in search(
                model,
                Task(torch.tensor([ids]), tag, forbidden, lead=(EOS,)),
                SearchConfig(beam=beam),
            )[0][0].ids
        ]
        pieces = theirs[2:]
        pieces = pieces[: pieces.index(EOS)] if EOS in pieces else pieces
        assert found == pieces[: LIMIT_FACTOR * len(ids) + LIMIT_EXTRA]


def test_what_goes_back_is_what_came(golden, tmp_path):
    """Every tensor bit for bit, the same ids, and settings that mean the same."""
    folder, path, order = golden
    out = tmp_path / "out"
    command = ["convert", str(path), "--to", "huggingface", "--output", str(out)]
    assert main([*command, "--licence", "mit"]) == 0
    before, after = (read_header(f / "model.safetensors") for f in (folder, out))
    scale = 0.8 if "moe" in folder.name else 1.0  # moe_token_dropout, which is in the weights now
    for name, stored in before.items():
        ours = "model.shared.weight" if name == "lm_head.weight" else name
        factor = scale if "experts" in name and "fc2" in name else 1.0
        found, expected = after[ours].read(), stored.read() * factor
        if found.shape[0] == len(order):  # their tokenizer had <mask> before the languages
            found, expected = (
                found[list(read_tokenizer(out, len(order)).order)],
                expected[list(order)],
            )
        assert torch.equal(found, expected)
    theirs, written = (json.loads((f / "config.json").read_text()) for f in (folder, out))
    for name in ("vocab_size", "d_model", "scale_embedding", "pad_token_id", "eos_token_id"):
        assert written[name] == theirs.get(name, written[name])
    assert written["decoder_start_token_id"] == EOS
    card = (out / "README.md").read_text()
    assert "license: mit" in card
    assert "- Languages: deu_Latn, eng_Latn, fra_Latn" in card
    assert "- Data: not stated" in card


def test_shards_hold_the_same_tensors(golden, tmp_path):
    _, path, _ = golden
    command = ["convert", str(path), "--to", "huggingface", "--output"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    assert main([*command, str(tmp_path / "parts"), "--shard-gb", "0.000003"]) == 0
    index = json.loads((tmp_path / "parts" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    for name in ("whole", "parts"):
        assert (
            main(["convert", str(tmp_path / name), "--output", str(tmp_path / f"{name}.pt")]) == 0
        )
    whole, parts = (load_checkpoint(tmp_path / f"{name}.pt") for name in ("whole", "parts"))
    for name, tensor in whole.weights.items():
        assert torch.equal(parts.weights[name], tensor)


@pytest.mark.parametrize(
    "settings",
    [{}, {"encoder_tags": "target"}, {"top_k": 2, "moe_every": 1}, {"first_position": 2}],
)
def test_a_model_of_ours_comes_back_as_it_was(tmp_path, settings):
    settings = {"moe_every": 0} | settings
    path = write_tiny_checkpoint(tmp_path, max_positions=256, **settings)
    out, back = tmp_path / "out", tmp_path / "back.pt"
    assert main(["convert", str(path), "--to", "huggingface", "--output", str(out)]) == 0
    assert main(["convert", str(out), "--output", str(back)]) == 0
    before, after = load_checkpoint(path), load_checkpoint(back)
    for name in ("encoder_tags", "decoder_start", "directions"):
        assert getattr(after, name) == getattr(before, name)
    lines = real_lines()[:10]
    found, expected = (Translator(c).translate(lines, "en", "fr") for c in (after, before))
    assert found == expected


@pytest.mark.parametrize("entry", [5, {}, {"encoder_tags": "none", "decoder_start": "tag"}])
def test_what_an_export_says_of_itself_is_checked(tmp_path, capsys, entry):
    folder = copy_folder(FOLDERS["dense"], tmp_path / "model")
    values = json.loads((folder / "config.json").read_text()) | {"mtmoe": entry}
    (folder / "config.json").write_text(json.dumps(values))
    assert main(["convert", str(folder), "--output", str(tmp_path / "out.pt")]) == 2
    assert "must say encoder_tags, decoder_start and directions" in capsys.readouterr().err
