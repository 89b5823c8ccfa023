"""Expert use by language: numbers, picture, and the command `mtmoe usage`."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch

from mtmoe.checkpoint.fairseq_file import (
    Checkpoint,
    load_checkpoint,
    pack_vocabulary,
    write_checkpoint,
)
from mtmoe.cli import usage
from mtmoe.config import TransformerConfig, build_config
from mtmoe.data.vocabulary import EOS, PAD, SPECIAL_SYMBOLS, Vocabulary
from mtmoe.errors import CheckpointError, ConfigError, DataError, MtmoeError
from mtmoe.modules.transformer import Transformer
from mtmoe.modules.usage import ExpertUse
from mtmoe.report.parallel_text import ParallelText
from mtmoe.report.plots import draw_expert_use
from mtmoe.report.usage import describe_use, make_batches, measure_text, use_by_language

ENGLISH = ("save all files", "open the door", "where is the file")
GERMAN = ("alle Dateien sichern", "öffne die Tür", "wo ist die Datei")
TEXT = ParallelText("en", "de", ENGLISH, GERMAN)
SHAPE = {
    "encoder_layers": 2,
    "decoder_layers": 2,
    "embed_dim": 8,
    "ffn_dim": 8,
    "attention_heads": 2,
    "num_experts": 3,
    "max_positions": 40,
}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    model = io.BytesIO()
    lines = iter(ENGLISH + GERMAN)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, vocab_size=30, minloglevel=2
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    symbols = [pieces.id_to_piece(n) for n in range(3, len(pieces))]
    return Vocabulary((*SPECIAL_SYMBOLS, *symbols, "__de__", "__en__"), model.getvalue())


def write_model(path: Path, vocabulary: Vocabulary, **settings: Any) -> Path:
    shape = SHAPE | settings
    model = Transformer(
        build_config(TransformerConfig, shape), len(vocabulary.symbols), PAD, seed=1
    )
    weights = {f"transformer.{name}": weight for name, weight in model.state_dict().items()}
    state = {
        "cfg": {"model": {**shape, "_name": "moe_transformer"}, "task": {"encoder_tags": "both"}},
        "model": weights,
        "task_state": pack_vocabulary(vocabulary, ["en-de", "de-en"]),
    }
    write_checkpoint(path, state)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path, vocabulary: Vocabulary) -> Checkpoint:
    return load_checkpoint(write_model(tmp_path / "tiny.pt", vocabulary))


def test_batches_are_as_in_training(checkpoint: Checkpoint) -> None:
    ((source, target),) = make_batches(checkpoint, TEXT)
    vocabulary = checkpoint.vocabulary
    assert sorted(vocabulary.decode(source.tolist())) == sorted(ENGLISH)
    assert sorted(vocabulary.decode(target.tolist())) == sorted(GERMAN)
    assert set(source[:, 0].tolist()) == {vocabulary.tag("en")}
    assert set(source[:, 1].tolist()) == set(target[:, 0].tolist()) == {vocabulary.tag("de")}
    assert (source == EOS).sum(1).tolist() == [1, 1, 1]
    assert (target == EOS).sum() == 0  # the last token is predicted, not read


def test_sentence_that_is_too_long_is_left_out_with_a_warning(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    text = ParallelText("en", "de", (*ENGLISH, "save " * 50), (*GERMAN, "sichern"))
    ((source, _),) = make_batches(checkpoint, text)
    assert source.shape[0] == 3
    assert "en-de: 1 sentences are too long" in caplog.text


def test_measured_tokens_are_those_of_the_text(checkpoint: Checkpoint) -> None:
    use = measure_text(checkpoint, checkpoint.build_model(), TEXT)
    pieces = checkpoint.vocabulary.encode
    num_source = sum(len(ids) + 3 for ids in pieces(ENGLISH))  # two tags and the end
    num_target = sum(len(ids) + 1 for ids in pieces(GERMAN))
    assert use.layers == ("encoder.1", "decoder.1")
    assert use.tokens.sum(1).tolist() == [num_source, num_target]


def test_language_without_a_tag_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(DataError, match="language must be one of de, en, but is 'xx'"):
        list(make_batches(checkpoint, ParallelText("en", "xx", ENGLISH, GERMAN)))


def make_use(encoder: list[int], decoder: list[int]) -> ExpertUse:
    tokens = torch.tensor([encoder, decoder])
    return ExpertUse(("encoder.1", "decoder.1"), (2, 2), tokens, tokens * 0.5, tokens)


def test_encoder_is_shown_by_source_and_decoder_by_target_language() -> None:
    uses = {
        "en-de": make_use([1, 3], [4, 0]),
        "en-es": make_use([3, 1], [0, 4]),
        "de-en": make_use([0, 8], [2, 6]),
    }
    shares = use_by_language(uses)
    assert shares["encoder.1"] == {"de": [0.0, 1.0], "en": [0.5, 0.5]}
    assert shares["decoder.1"] == {"de": [1.0, 0.0], "en": [0.25, 0.75], "es": [0.0, 1.0]}
    described = describe_use(uses)["en-de"]["encoder.1"]
    assert described["tokens"] == [1, 3]
    assert described["mean_probability"] == [0.5, 0.5]


@pytest.mark.parametrize(("num_layers", "num_experts"), [(1, 2), (3, 8), (4, 40)])
def test_picture_is_a_png_of_any_size(tmp_path: Path, num_layers: int, num_experts: int) -> None:
    even = [1 / num_experts] * num_experts
    shares = {f"encoder.{n}": {"de": even, "en": even} for n in range(num_layers)}
    draw_expert_use(shares, tmp_path / "use.png", "Use")
    assert (tmp_path / "use.png").read_bytes().startswith(b"\x89PNG")


def parse(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    usage.add_arguments(parser)
    return parser.parse_args(options)


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    for language, lines in (("en", ENGLISH), ("de", GERMAN)):
        (tmp_path / f"valid.en-de.{language}").write_text("\n".join(lines) + "\n", "utf-8")
    return tmp_path


def test_command_writes_picture_and_numbers(
    text_folder: Path, vocabulary: Vocabulary, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(text_folder / "tiny.pt", vocabulary)
    picture, numbers = text_folder / "use.png", text_folder / "use.json"
    options = ("--model", str(model), "--text", str(text_folder), "--output", str(picture))
    usage.run(parse(*options, "--json", str(numbers)))
    assert capsys.readouterr().out == f"{picture}\n"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert set(json.loads(numbers.read_text())) == {"en-de", "de-en"}


@pytest.mark.parametrize(
    ("settings", "options", "error", "sentence"),
    [
        ({}, ["--limit", "0"], ConfigError, "--limit must be at least 1, but is 0"),
        (
            {},
            ["--json", "/no/such/x.json"],
            ConfigError,
            "--json must lie in a folder that is there",
        ),
        ({"moe_every": 0}, [], CheckpointError, "model must have MoE layers, but .* is dense"),
    ],
)
def test_command_refuses_wrong_options(
    text_folder: Path,
    vocabulary: Vocabulary,
    settings: dict[str, int],
    options: list[str],
    error: type[MtmoeError],
    sentence: str,
) -> None:
    model = write_model(text_folder / "tiny.pt", vocabulary, **settings)
    picture = str(text_folder / "use.png")
    required = ("--model", str(model), "--text", str(text_folder), "--output", picture)
    with pytest.raises(error, match=sentence):
        usage.run(parse(*required, *options))


@pytest.mark.parametrize("option", ["--output", "--json"])
@pytest.mark.parametrize("name", ["tiny.pt", "valid.en-de.de"])
def test_outputs_replace_nothing_that_is_read(
    text_folder: Path, vocabulary: Vocabulary, option: str, name: str
) -> None:
    model = write_model(text_folder / "tiny.pt", vocabulary)
    before = (text_folder / name).read_bytes()
    options = ["--model", str(model), "--text", str(text_folder), "--output", "use.png"]
    with pytest.raises(ConfigError, match=f"{option} must be another file than what is read"):
        usage.run(parse(*options, option, str(text_folder / name)))
    assert (text_folder / name).read_bytes() == before


def test_picture_and_numbers_are_two_files(text_folder: Path, vocabulary: Vocabulary) -> None:
    model, out = write_model(text_folder / "tiny.pt", vocabulary), str(text_folder / "out")
    options = ("--model", str(model), "--text", str(text_folder), "--output", out, "--json", out)
    with pytest.raises(ConfigError, match="--json must be another file than --output"):
        usage.run(parse(*options))
