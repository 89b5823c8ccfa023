"""What is damaged or hostile is refused in one sentence; nothing runs, nothing is left behind."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from mtmoe.cli.main import main
from mtmoe.interop.safetensors_file import read_header
from tests.interop.golden.make import FOLDERS, copy_folder


class Harmful:
    def __reduce__(self):
        return print, ("code of a model ran",)


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def edit_json(name, change):
    def edit(folder):
        values = json.loads((folder / name).read_text())
        change(values)
        (folder / name).write_text(json.dumps(values))

    return edit


def edit_header(change):
    """Change the header of the safetensors file, and keep it the same length or longer."""

    def edit(folder):
        path = folder / "model.safetensors"
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])

    return edit


NORM = "model.encoder.layer_norm.weight"


def swap_shape(header):
    header[NORM]["shape"] = [1, 8]


def index_outside(folder):
    places = {"weight_map": {NORM: "../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(places))


def index_without_file(folder):
    places = {"weight_map": {NORM: "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(places))


def index_of_other_file(folder):
    places = {"weight_map": {"model.none": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(places))


def pickled(folder):
    (folder / "model.safetensors").unlink()
    torch.save({NORM: Harmful()}, folder / "pytorch_model.bin")


def bare_pickle(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Harmful()))


def shard(folder):
    """The weights in two shards of .bin with an index, as Hugging Face writes them."""
    path = folder / "model.safetensors"
    weights = {name: tensor.read() for name, tensor in read_header(path).items()}
    path.unlink()
    names = sorted(weights)
    places = {}
    for number, half in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: weights[name] for name in half}, folder / file)
        places |= dict.fromkeys(half, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    return folder / file  # the last one


def truncated_shard(folder):
    path = shard(folder)
    path.write_bytes(path.read_bytes()[:-50])


def missing_shard(folder):
    shard(folder).unlink()


def harmful_shard(folder):
    torch.save({NORM: Harmful()}, shard(folder))


def shard_without_a_weight(folder):
    path = shard(folder)
    weights = torch.load(path, weights_only=True)
    del weights[sorted(weights)[0]]
    torch.save(weights, path)


def shard_with_a_wrong_shape(folder):
    path = shard(folder)
    weights = torch.load(path, weights_only=True)
    torch.save(weights | {NORM: torch.ones(9)}, path)


def absolute_index(folder):
    shard(folder)
    places = {"weight_map": {NORM: "/etc/passwd"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(places))


def index_of_numbers(folder):
    shard(folder)
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": 3}}')


DAMAGES = [
    (truncate, r"model.safetensors must be a whole safetensors file, but model.+ ends at byte"),
    (edit_header(lambda h: h.pop(NORM)), f"weight {NORM} must be in one of the files (model.safe"),
    (edit_header(swap_shape), "must have the shape (8,), but has (1, 8)"),
    (edit_header(lambda h: h[NORM].update(dtype="F8")), f"entry of {NORM} is not understood"),
    (edit_header(lambda h: h[NORM].update(shape=[9])), f"{NORM} of shape (9,) does not fit its"),
    (edit_header(lambda h: h[NORM].update(dtype="I32")), "must be of a floating-point type, but"),
    (edit_header(lambda h: h.update(extra=h[NORM])), "weight extra of "),
    (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 40), "header of "),
    (lambda f: (f / "model.safetensors").write_bytes(b""), "its header of 0 bytes"),
    (lambda f: (f / "model.safetensors").unlink(), "must hold model.safetensors or pytorch_model"),
    (index_outside, "must name files of its own folder, but names '../secret.safetensors'"),
    (index_without_file, "model-00001-of-00002.safetensors must be a file, but is not there"),
    (index_of_other_file, "weight model.none must be in "),
    (pickled, "pytorch_model.bin holds Python objects other than weights"),
    (bare_pickle, "pytorch_model.bin is no checkpoint"),
    (truncated_shard, "pytorch_model-00002-of-00002.bin is cut off or damaged"),
    (missing_shard, "pytorch_model-00002-of-00002.bin must be a file, but is not there"),
    (harmful_shard, "pytorch_model-00002-of-00002.bin holds Python objects other than weights"),
    (shard_without_a_weight, "00002-of-00002.bin, as pytorch_model.bin.index.json says"),
    (shard_with_a_wrong_shape, "must have the shape (8,), but has (9,)"),
    (absolute_index, "must name files of its own folder, but names '/etc/passwd'"),
    (index_of_numbers, "must hold a weight_map, but has none"),
    (edit_json("config.json", lambda c: c.update(model_type="bart")), "model_type of "),
    (edit_json("config.json", lambda c: c.pop("d_model")), "must hold all sizes"),
    (edit_json("config.json", lambda c: c.update(vocab_size=4)), "must have languages and fit"),
    (edit_json("config.json", lambda c: c.update(activation_function="swish")), "activation_func"),
    (edit_json("config.json", lambda c: c.update(decoder_ffn_dim=1)), "decoder_ffn_dim of "),
    (lambda f: (f / "config.json").write_text("{"), "config.json must hold a JSON object"),
    (lambda f: (f / "config.json").write_text("[" * 200_000), "must hold a JSON object"),
    (edit_json("added_tokens.json", lambda c: c.update(deu_Latn=None)), "JSON files of"),
    (edit_json("added_tokens.json", lambda c: c.update(deu_Latn=2)), "must have languages and fit"),
    (edit_json("added_tokens.json", lambda c: c.update(deu_Latn=-1)), "must have languages"),
    (edit_json("special_tokens_map.json", lambda c: c.update(additional_special_tokens=3)), "JSON"),
    (edit_header(lambda h: h.pop("model.shared.weight")), "weight model.shared.weight must be in"),
    (lambda f: (f / "sentencepiece.bpe.model").unlink(), "SentencePiece model must be a file"),
    (lambda f: (f / "sentencepiece.bpe.model").write_bytes(b"x"), "must be a SentencePiece model"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_folder_is_refused(tmp_path, capfd, damage, message):
    folder = copy_folder(FOLDERS["dense"], tmp_path / "model")
    damage(folder)
    assert main(["convert", str(folder), "--output", str(tmp_path / "out.pt")]) == 2
    captured = capfd.readouterr()
    assert captured.err.count("\n") == 1
    found = captured.err
    start, _, rest = message.partition(".+")
    assert start.replace("\\", "") in found, found
    assert rest in found
    assert "ran" not in captured.out
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


SIZES = (
    "encoder_layers", "d_model", "encoder_ffn_dim", "encoder_attention_heads", "vocab_size",
    "num_experts", "encoder_sparse_step", "max_position_embeddings", "dropout", "scale_embedding",
)  # fmt: skip


@pytest.mark.parametrize("value", [-1, 10**9, 10**400, 1e30, float("nan"), 2.5, "2", None, [1]])
@pytest.mark.parametrize("name", SIZES)
def test_a_size_for_which_there_are_no_weights_is_refused(tmp_path, capsys, name, value):
    folder = copy_folder(FOLDERS["moe"], tmp_path / "model")
    edit_json("config.json", lambda c: c.update({name: value}))(folder)
    assert main(["convert", str(folder), "--output", str(tmp_path / "out.pt")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "lacks" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_is_there_is_not_overwritten(tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("mine")
    assert main(["convert", "none.pt", "--to", "huggingface", "--output", str(out)]) == 2
    assert "must be a new or empty folder" in capsys.readouterr().err
    assert (out / "a").read_text() == "mine"


@pytest.mark.parametrize(
    ("option", "data", "message"),
    [
        ("licence", "mit\ntags:\n- evil", "--licence must be a name of letters"),
        ("licence", "mit: x", "--licence must be a name of letters"),
        ("licence", "", "--licence must be a name of letters"),
        ("manifest", b"no json", "manifest must hold a JSON object"),
        ("scores", b"fine\n\xff\xfe\n", "scores line 2 has the byte 0xff"),
    ],
)
def test_what_cannot_stand_in_a_model_card_is_refused(tmp_path, capsys, option, data, message):
    from tests.inference.tiny_model import write_tiny_checkpoint

    path, value = write_tiny_checkpoint(tmp_path, moe_every=0), data
    if isinstance(data, bytes):
        (tmp_path / option).write_bytes(data)
        value = str(tmp_path / option)
    words = ["convert", str(path), "--to", "huggingface", "--output", str(tmp_path / "out")]
    assert main([*words, f"--{option}", value]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--to gathered --licence mit", "--licence must be given where a model card is written"),
        ("--to gathered --dict x", "--dict must be given where a checkpoint of fairseq is read"),
        ("--to huggingface --spm x", "--spm must be given where a checkpoint of fairseq is read"),
        ("--to mtmoe --scores x", "--scores must be given where a model card is written"),
        ("--to sharded --shard-gb 1", "--shard-gb must be given with --to huggingface, but it is"),
        ("--languages de,en", "--languages must be given where a checkpoint of fairseq is read"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, capsys, options, message):
    words = ["convert", str(FOLDERS["dense"]), "--output", str(tmp_path / "out")]
    assert main([*words, *options.split()]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_export_that_fails_leaves_nothing(tmp_path, capsys):
    from tests.inference.tiny_model import write_tiny_checkpoint

    path = write_tiny_checkpoint(tmp_path, top_k=1)
    out = tmp_path / "out"
    assert main(["convert", str(path), "--to", "huggingface", "--output", str(out)]) == 2
    assert "top_k of the checkpoint is 1, which Hugging Face" in capsys.readouterr().err
    assert [p.name for p in Path(tmp_path).iterdir()] == [path.name]
