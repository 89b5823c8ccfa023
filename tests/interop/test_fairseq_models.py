"""fairseq's own transformer, and the nllb branch's files: the same logits here."""

from __future__ import annotations

import argparse

import pytest
import torch
from torch.testing import assert_close

from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.checkpoint.tensor_stream import stored_tensors
from mtmoe.cli.main import main
from mtmoe.interop.huggingface_in import read_folder
from mtmoe.interop.names import FAIRSEQ, HUGGINGFACE_MOE, weight_parts
from tests.interop.foreign_models import padded_ids, small_sentencepiece
from tests.interop.golden.make import FOLDERS

LANGUAGES = "deu_Latn,eng_Latn,fra_Latn"
SIZES = {
    "encoder_layers": 2, "decoder_layers": 2, "encoder_embed_dim": 16, "decoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 32, "decoder_ffn_embed_dim": 32, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "share_all_embeddings": True, "encoder_normalize_before": True,
    "decoder_normalize_before": True, "dropout": 0.0, "max_source_positions": 64,
    "max_target_positions": 64,
}  # fmt: skip
NUM_PIECES = 77


def write_text_files(folder):
    """dict.txt and SentencePiece model; returns the options that name them."""
    (folder / "dict.txt").write_text("".join(f"piece{n} 1\n" for n in range(NUM_PIECES)))
    (folder / "spm.model").write_bytes(small_sentencepiece())
    files = ["--dict", str(folder / "dict.txt"), "--spm", str(folder / "spm.model")]
    return [*files, "--languages", LANGUAGES]


def fairseq_model(**options):
    """A random model of fairseq, whose dictionary has 4 + 77 symbols, 3 languages, 2 more."""
    from fairseq.data import Dictionary
    from fairseq.models.transformer import TransformerModel, base_architecture

    dictionary = Dictionary()
    for n in range(NUM_PIECES + 5):
        dictionary.add_symbol(f"piece{n}")
    args = argparse.Namespace(**(SIZES | options))
    base_architecture(args)
    task = argparse.Namespace(source_dictionary=dictionary, target_dictionary=dictionary)
    torch.manual_seed(1)
    return TransformerModel.build_model(args, task).eval(), args


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options", [{}, {"no_scale_embedding": True}, {"activation_fn": "gelu", "decoder_layers": 3}]
)
def test_a_fairseq_transformer_is_the_same_here(tmp_path, options):
    model, args = fairseq_model(**options)
    torch.save({"args": args, "model": model.state_dict()}, tmp_path / "theirs.pt")
    command = ["convert", str(tmp_path / "theirs.pt"), "--output", str(tmp_path / "ours.pt")]
    assert main([*command, *write_text_files(tmp_path)]) == 0
    checkpoint = load_checkpoint(tmp_path / "ours.pt")
    assert checkpoint.vocabulary.languages == tuple(LANGUAGES.split(","))
    source, target = padded_ids(80)  # pieces only: their ids are ours
    ours = checkpoint.build_model()
    found = ours.project(ours(source, target).states)
    lengths = (source != 1).sum(1)
    expected = model(source, lengths, target)[0]
    assert_close(found[..., :81], expected[..., :81], atol=1e-5, rtol=0)


def write_nllb_files(folder, experts_per_rank):
    """The golden MoE model under the nllb branch's names, in its files."""
    theirs = read_folder(FOLDERS["moe"])
    config = theirs.config
    tensors = {}
    names = zip(
        weight_parts(config, FAIRSEQ), weight_parts(config, HUGGINGFACE_MOE), strict=True
    )  # fmt: skip
    for fairseq, huggingface in names:
        tensors[fairseq.theirs] = theirs.weights[huggingface.theirs].read()
    args = argparse.Namespace(
        encoder_layers=1, decoder_layers=1, encoder_embed_dim=8, decoder_embed_dim=8,
        encoder_ffn_embed_dim=8, decoder_ffn_embed_dim=8, encoder_attention_heads=2,
        decoder_attention_heads=2, share_all_embeddings=True, encoder_normalize_before=True,
        decoder_normalize_before=True, moe_freq=1, moe_eom=0.2, max_source_positions=256,
    )  # fmt: skip
    shared = {name: t for name, t in tensors.items() if ".experts." not in name}
    torch.save({"args": args, "model": shared}, folder / "moe-shared.pt")
    for rank in range(config.router.num_experts // experts_per_rank):
        local = {
            name.replace(f".experts.{e}.", f".experts.{e - rank * experts_per_rank}."): t
            for name, t in tensors.items()
            for e in range(rank * experts_per_rank, (rank + 1) * experts_per_rank)
            if f".experts.{e}." in name
        }
        torch.save({"args": args, "model": local}, folder / f"moe-rank-{rank}.pt")
    return folder / "moe-shared.pt"


@pytest.mark.parametrize("experts_per_rank", [1, 3])
def test_experts_of_all_ranks_come_together(tmp_path, experts_per_rank):
    path = write_nllb_files(tmp_path, experts_per_rank)
    command = ["convert", str(path), "--output", str(tmp_path / "ours.pt")]
    assert main([*command, *write_text_files(tmp_path)]) == 0
    assert main(["convert", str(FOLDERS["moe"]), "--output", str(tmp_path / "hf.pt")]) == 0
    found, expected = (load_checkpoint(tmp_path / name).weights for name in ("ours.pt", "hf.pt"))
    for name, tensor in expected.items():
        if name != "embedding.weight":  # another dictionary
            assert torch.equal(found[name], tensor)
    config = load_checkpoint(tmp_path / "ours.pt").config
    assert (config.router.top_k, config.moe_every, config.first_position) == (2, 1, 2)


def test_what_is_missing_is_named(tmp_path, capsys):
    path = write_nllb_files(tmp_path, 1)
    files = write_text_files(tmp_path)
    (tmp_path / "moe-rank-1.pt").unlink()
    command = ["convert", str(path), "--output", str(tmp_path / "ours.pt")]
    assert main([*command, *files]) == 2
    assert "moe-rank-1.pt is not there" in capsys.readouterr().err
    assert main(command) == 2
    assert "--dict must be given for a checkpoint of fairseq" in capsys.readouterr().err
    assert not (tmp_path / "ours.pt").exists()


def test_post_norm_is_refused(tmp_path, capsys):
    args = argparse.Namespace(**(SIZES | {"encoder_normalize_before": False}))
    torch.save({"args": args, "model": {"a": torch.zeros(1)}}, tmp_path / "theirs.pt")
    assert stored_tensors(tmp_path / "theirs.pt", "model")["a"].read().tolist() == [0.0]
    command = ["convert", str(tmp_path / "theirs.pt"), "--output", str(tmp_path / "ours.pt")]
    assert main([*command, *write_text_files(tmp_path)]) == 2
    assert "encoder_normalize_before of" in capsys.readouterr().err


class Harmful:
    def __reduce__(self):
        return print, ("code of a model ran",)


def cut_rank(folder):
    path = folder / "moe-rank-1.pt"
    path.write_bytes(path.read_bytes()[:-100])
    return "moe-rank-1.pt is cut off or damaged"


def harmful_rank(folder):
    torch.save({"model": {"a": Harmful()}}, folder / "moe-rank-1.pt")
    return "moe-rank-1.pt holds Python objects other than weights"


def rank_without_weights(folder):
    torch.save({"other": {}}, folder / "moe-rank-1.pt")
    return "moe-rank-1.pt must hold weights under 'model', but has other"


def wrong_shape_of_an_expert(folder):
    edit_rank(folder, lambda name, tensor: tensor[:-1])
    return "of {folder}/moe-rank-1.pt must have the shape"


def without_a_weight_of_an_expert(folder):
    edit_rank(folder, lambda name, tensor: None if name.endswith("fc1.weight") else tensor)
    return "fc1.weight must be in one of the files"


def edit_rank(folder, change):
    """Replace each weight of rank 1's file by what `change` makes of it; None leaves it out."""
    path = folder / "moe-rank-1.pt"
    with torch.serialization.safe_globals([argparse.Namespace]):
        state = torch.load(path, weights_only=True)
    changed = {name: change(name, tensor) for name, tensor in state["model"].items()}
    state["model"] = {name: tensor for name, tensor in changed.items() if tensor is not None}
    torch.save(state, path)


@pytest.mark.parametrize(
    "harm",
    [
        cut_rank, harmful_rank, rank_without_weights, wrong_shape_of_an_expert,
        without_a_weight_of_an_expert,
    ],
)  # fmt: skip
def test_a_damaged_rank_is_refused(tmp_path, capfd, harm):
    path, files = write_nllb_files(tmp_path, 1), write_text_files(tmp_path)
    message = harm(tmp_path).format(folder=tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main(["convert", str(path), "--output", str(tmp_path / "ours.pt"), *files]) == 2
    found = capfd.readouterr()
    assert message in found.err
    assert found.err.count("\n") == 1
    assert "ran" not in found.out
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "value"), [("encoder_layers", 10**9), ("encoder_embed_dim", 1e30), ("moe_eom", "x")]
)
def test_a_size_for_which_there_are_no_weights_is_refused(tmp_path, capsys, name, value):
    model, args = fairseq_model()
    for side in ("encoder", "decoder"):
        setattr(args, name.replace("encoder", side), value)
    torch.save({"args": args, "model": model.state_dict()}, tmp_path / "theirs.pt")
    command = ["convert", str(tmp_path / "theirs.pt"), "--output", str(tmp_path / "ours.pt")]
    assert main([*command, *write_text_files(tmp_path)]) == 2
    assert f"{name} of {tmp_path}/theirs.pt must be a " in capsys.readouterr().err
    assert not (tmp_path / "ours.pt").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("dict", "piece1 1\npiece1 1\n", "--dict must have each symbol once, and no special one"),
        ("dict", "</s> 1\n", "--dict must have each symbol once, and no special one"),
        ("spm", "no model", "must be a SentencePiece model, but is damaged"),
        ("languages", "de,de", "--languages must be different words"),
        ("languages", "zh-CN,de", "--languages must be different words"),
        ("model", torch.zeros(16).to_sparse(), "must be a dense tensor with its numbers, but is"),
        (
            "model",
            torch.zeros(16, device="meta"),
            "must be a dense tensor with its numbers, but is",
        ),
        ("args", 3, "must hold cfg or args of fairseq, but holds neither"),
    ],
)
def test_what_does_not_belong_to_a_model_is_refused(tmp_path, capsys, option, value, message):
    model, args = fairseq_model()
    state = {"args": args, "model": model.state_dict()}
    options = write_text_files(tmp_path)
    if option == "model":
        state["model"]["encoder.layer_norm.bias"] = value
    elif option == "args":
        state["args"] = value
    elif option == "languages":
        options[-1] = value
    else:
        path = tmp_path / {"dict": "dict.txt", "spm": "spm.model"}[option]
        path.write_text(value)
    torch.save(state, tmp_path / "theirs.pt")
    words = ["convert", str(tmp_path / "theirs.pt"), "--output", str(tmp_path / "ours.pt")]
    assert main([*words, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "ours.pt").exists()
