"""Statistics of experts in a file, and the command that makes it."""

from __future__ import annotations

import json

import pytest
import torch
from torch.testing import assert_close

from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.cli.main import main
from mtmoe.inference.engine import Translator
from mtmoe.report.expert_statistics import fingerprint, read_statistics, write_statistics
from mtmoe.report.parallel_text import ParallelText
from mtmoe.report.usage import measure_text
from tests.inference.tiny_model import write_tiny_checkpoint

ENGLISH = ["Save the file.", "Open a new window.", "Close all windows!", "No results were found."]
GERMAN = ["Die Datei speichern.", "Ein neues Fenster öffnen.", "Alles schließen!", "Die Dateien."]


def write_texts(folder):
    for language, lines in (("en", ENGLISH), ("de", GERMAN)):
        for name, part in (("a", lines[:2]), ("b", lines[2:]), ("all", lines)):
            path = folder / f"{name}.de-en.{language}"
            path.write_text("\n".join(part) + "\n", "utf-8")


def stats(folder, name, *options, text="all", model="checkpoint_tiny.pt"):
    texts = [str(folder / f"{text}.de-en.en")] if text else []
    words = ["expert-stats", str(folder / model), "--output", str(folder / name)]
    return main([*words, *(["--text", *texts] if texts else []), *options])


@pytest.fixture
def folder(tmp_path):
    write_tiny_checkpoint(tmp_path, top_k=2, moe_every=1)
    write_texts(tmp_path)
    return tmp_path


def test_numbers_are_those_of_teacher_forcing_on_the_reference(folder, capsys):
    assert stats(folder, "s.json", "--decoding", "reference") == 0
    assert capsys.readouterr().out == f"{folder / 's.json'}\n"
    checkpoint = load_checkpoint(folder / "checkpoint_tiny.pt")
    text = ParallelText("en", "de", tuple(ENGLISH), tuple(GERMAN))
    use = measure_text(checkpoint, checkpoint.build_model(), text)
    content = json.loads((folder / "s.json").read_text())
    assert set(content["directions"]) == {"en-de", "de-en"}
    row = content["directions"]["en-de"]["decoder.0"]
    assert row["first_choices"] == use.tokens[2].tolist()
    assert row["tokens"] == use.choices[2].tolist()
    assert sum(row["tokens"]) == 2 * sum(row["first_choices"])
    assert row["mean_confidence"] == use.mean_probability()[2].tolist()


def test_numbers_are_those_of_the_models_own_translation(folder):
    assert stats(folder, "s.json", "--beam", "3", "--langs", "en,de") == 0
    checkpoint = load_checkpoint(folder / "checkpoint_tiny.pt")
    translated = Translator(checkpoint).translate(ENGLISH, "en", "de", beam=3)
    text = ParallelText("en", "de", tuple(ENGLISH), tuple(translated))
    use = measure_text(checkpoint, checkpoint.build_model(), text)
    found = read_statistics([folder / "s.json"]).uses
    assert set(found) == {"en-de"}
    assert torch.equal(found["en-de"].tokens, use.tokens)


def test_parts_add_up_to_the_whole_by_reading_and_by_adding(folder):
    for name in ("a", "b", "all"):
        assert stats(folder, f"{name}.json", "--decoding", "reference", text=name) == 0
    assert (
        stats(folder, "sum.json", "--add", str(folder / "a.json"), str(folder / "b.json"), text="")
        == 0
    )
    assert (
        stats(
            folder,
            "sum2.json",
            "--add",
            str(folder / "a.json"),
            "--decoding",
            "reference",
            text="b",
        )
        == 0
    )
    whole = read_statistics([folder / "all.json"]).uses
    for paths in (["a.json", "b.json"], ["sum.json"], ["sum2.json"]):
        total = read_statistics([folder / path for path in paths]).uses
        for direction, use in whole.items():
            assert torch.equal(total[direction].tokens, use.tokens)
            assert torch.equal(total[direction].choices, use.choices)
            assert_close(total[direction].probability, use.probability, rtol=1e-5, atol=1e-6)


def test_a_file_that_was_written_reads_as_it_was(folder):
    stats(folder, "s.json")
    first = read_statistics([folder / "s.json"])
    assert first.routers == fingerprint(load_checkpoint(folder / "checkpoint_tiny.pt"))
    write_statistics(folder / "t.json", first)
    assert (folder / "t.json").read_bytes() == (folder / "s.json").read_bytes()


def test_prune_reuses_them_and_gives_what_it_gives_from_the_text(folder):
    stats(folder, "s.json")
    outputs = []
    for options in (["--stats", str(folder / "s.json")], ["--text", str(folder / "all.de-en.en")]):
        out = folder / f"{options[0]}.pt"
        model = str(folder / "checkpoint_tiny.pt")
        assert main(["prune", model, "--keep", "2", "--output", str(out), *options]) == 0
        outputs.append(out.read_bytes())
    assert load_checkpoint(out).config.router.num_experts == 2
    assert outputs[0] == outputs[1].replace(b"--text", b"--stats")


def test_statistics_of_another_model_are_refused(folder, capsys):
    stats(folder, "s.json")
    other = folder / "other"
    other.mkdir()
    model = write_tiny_checkpoint(other, top_k=2, moe_every=1, seed=2)
    words = ["prune", str(model), "--keep", "2", "--output", str(other / "out.pt")]
    assert main([*words, "--stats", str(folder / "s.json")]) == 2
    assert "statistics must be of one model" in capsys.readouterr().err
    assert not (other / "out.pt").exists()


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"format": "x"}', '{"format": "mtmoe expert statistics 1"}',
                '{"format": "mtmoe expert statistics 1", "routers": "a", "directions": {"en-de": '
                '{"encoder.1": {"tokens": ["x"], "first_choices": [1], "mean_confidence": [1]}}}}'],
)  # fmt: skip
def test_files_that_are_no_statistics_are_refused(folder, capsys, content):
    (folder / "bad.json").write_text(content)
    assert stats(folder, "s.json", "--add", str(folder / "bad.json"), text="") == 2
    error = capsys.readouterr().err
    assert f"must be a file of `mtmoe expert-stats`, but {folder / 'bad.json'} is none" in error
    assert not (folder / "s.json").exists()


def test_wrong_options_are_refused(folder, capsys):
    added = ["--add", str(folder / "s.json"), "--languages", "de,en"]
    assert stats(folder, "t.json", *added, text="") == 2
    assert "--languages must be given with --text" in capsys.readouterr().err
    assert stats(folder, "s.json", text="") == 2
    assert "--text must name files, but is not given" in capsys.readouterr().err
    (folder / "plain.en").write_text("Save the file.\n")
    words = ["expert-stats", str(folder / "checkpoint_tiny.pt"), "--output", str(folder / "s.json")]
    assert main([*words, "--text", str(folder / "plain.en"), "--decoding", "reference"]) == 2
    assert "parallel text must be named as valid.en-de.en" in capsys.readouterr().err
    write_tiny_checkpoint(folder, moe_every=0)
    assert stats(folder, "s.json") == 2
    assert "is dense" in capsys.readouterr().err


def test_text_of_too_long_sentences_only_is_refused(folder, capsys):
    for language in ("de", "en"):
        (folder / f"long.de-en.{language}").write_text("Save the file. " * 99 + "\n")
    assert stats(folder, "s.json", "--decoding", "reference", text="long") == 2
    error = capsys.readouterr().err
    assert "--text must hold sentences of at most 64 tokens, but all are longer in de-en" in error
    assert not (folder / "s.json").exists()


def edit_nan(directions):
    directions["en-de"]["encoder.0"]["mean_confidence"][0] = float("nan")


def edit_negative(directions):
    directions["en-de"]["encoder.0"]["tokens"][0] = -1


def edit_sure(directions):
    row = directions["en-de"]["encoder.0"]
    row["first_choices"][0], row["mean_confidence"][0] = 3, 1.5


def edit_one_layer_less(directions):
    del directions["en-de"]["decoder.1"]


def edit_nothing_left(directions):
    directions.clear()


def edit_no_direction(directions):
    directions["ende"] = directions.pop("en-de")


def edit_no_tokens(directions):
    for numbers in directions["en-de"]["decoder.0"].values():
        numbers[:] = [0] * len(numbers)


def edit_too_many(directions):
    directions["en-de"]["decoder.0"]["tokens"][:] = [2**62] * 4


def edit_two_experts(directions):
    for row in directions["en-de"].values():
        for numbers in row.values():
            del numbers[2:]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edit_nan, "is none (ValueError)"), (edit_negative, "is none"), (edit_sure, "is none"),
        (edit_nothing_left, "is none"), (edit_no_direction, "is none"),
        (edit_one_layer_less, "statistics must have all experts of the layers encoder.0, encoder"),
        (edit_no_tokens, "statistics must count tokens in every layer, but those of en-de do not"),
        (edit_too_many, "is none"),
        (edit_two_experts, "but those of en-de have not"),
    ],
)  # fmt: skip
def test_impossible_numbers_are_refused(folder, capsys, edit, message):
    assert stats(folder, "s.json", "--langs", "en,de") == 0
    content = json.loads((folder / "s.json").read_text())
    edit(content["directions"])
    (folder / "s.json").write_text(json.dumps(content))
    words = ["prune", str(folder / "checkpoint_tiny.pt"), "--keep", "2"]
    words += ["--stats", str(folder / "s.json"), "--output", str(folder / "out.pt")]
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out.pt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--languages", "en,fr"], "leave none of en-de. Name others"),
        (["--directions", ","], "leave none of en-de"),
        (["--directions", "en"], "the statistics must have en, or its source"),
        (["--floor", "2"], "--floor must be given with --total, but --keep is"),
    ],
)
def test_a_scope_without_numbers_is_refused(folder, capsys, options, message):
    assert stats(folder, "s.json", "--langs", "en,de") == 0
    words = ["prune", str(folder / "checkpoint_tiny.pt"), "--keep", "2"]
    words += ["--stats", str(folder / "s.json"), "--output", str(folder / "out.pt")]
    assert main([*words, *options]) == 2
    assert message in capsys.readouterr().err
