"""The rows of the translation benchmark that run in mtmoe's own environment: mtmoe and fairseq."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.translate_calls import Work, batch_sorted, make_calls, read_work
from benchmarks.translate_models import SOURCE, TARGET
from benchmarks.worker import Call
from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.data.batching import pad
from mtmoe.data.vocabulary import PAD
from mtmoe.inference.engine import Translator
from mtmoe.inference.requests import Request
from mtmoe.inference.search_config import SearchConfig


def build_mtmoe(options: dict[str, Any]) -> dict[str, Call]:
    """`Translator`, from text to text.

    Args:
        options: model, dtype, workers, beams, batches, folder.
    """
    folder = Path(options["folder"])
    work = read_work(folder)
    path = folder / f"{options['model']}.pt"
    translator = Translator.from_checkpoint(
        path, dtype=options["dtype"], threads=options["workers"]
    )
    requests = [Request(text, SOURCE, TARGET) for text in work.text]
    longest = max(map(len, work.ids))
    pieces = work.length - 1  # the end comes on top

    def translate(beam: int, batch: int) -> int:
        config = SearchConfig(
            beam=beam, min_length=pieces, max_length=pieces, max_tokens=batch * longest
        )
        found = translator.translate_requests(requests, config)
        return sum(len(ranked[0].pieces) for ranked in found)

    return make_calls(options, translate)


def build_fairseq(options: dict[str, Any]) -> dict[str, Call]:
    """fairseq's own transformer of the same sizes under its `SequenceGenerator`, ids to ids."""
    folder = Path(options["folder"])
    work = read_work(folder)
    torch.set_num_threads(options["threads"])
    model, dictionary = _make_fairseq(folder / f"{options['model']}.pt", work)
    generator = import_module("fairseq.sequence_generator").SequenceGenerator
    pieces = work.length - 1

    def translate(beam: int, batch: int) -> int:
        search = generator(
            [model], dictionary, beam_size=beam, max_len_a=0, max_len_b=pieces, min_len=pieces
        )
        return sum(_search(search, rows, work.start) for rows in batch_sorted(work.ids, batch))

    return make_calls(options, translate)


def _search(search: Any, rows: Sequence[Sequence[int]], start: int) -> int:
    source = pad_left(rows)
    lengths = torch.tensor([len(row) for row in rows])
    sample = {"net_input": {"src_tokens": source, "src_lengths": lengths}}
    found = search.generate([], sample, bos_token=start)
    return sum(len(ranked[0]["tokens"]) for ranked in found)


def pad_left(rows: Sequence[Sequence[int]]) -> Tensor:
    """(B, S) int64, padded on the left, as fairseq pads its sources."""
    return pad([row[::-1] for row in rows]).flip(1)


def _make_fairseq(path: Path, work: Work) -> tuple[Any, Any]:
    """A model with the weights' sizes of the checkpoint, as `fairseq-generate` prepares it."""
    config = load_checkpoint(path, is_mapped=True).config
    dictionary = import_module("fairseq.data").Dictionary()
    for n in range(len(dictionary), work.num_symbols):
        dictionary.add_symbol(str(n))
    assert (dictionary.pad(), len(dictionary)) == (PAD, work.num_symbols)
    sizes: dict[str, Any] = {"share_all_embeddings": True}
    for side in ("encoder", "decoder"):
        sizes |= {
            f"{side}_layers": getattr(config, f"{side}_layers"),
            f"{side}_embed_dim": config.embed_dim,
            f"{side}_ffn_embed_dim": config.ffn_dim,
            f"{side}_attention_heads": config.attention_heads,
            f"{side}_normalize_before": True,
        }
    args = argparse.Namespace(**sizes)
    transformer = import_module("fairseq.models.transformer")
    transformer.base_architecture(args)
    task = argparse.Namespace(source_dictionary=dictionary, target_dictionary=dictionary)
    model = transformer.TransformerModel.build_model(args, task).eval()
    model.prepare_for_inference_(argparse.Namespace(generation=argparse.Namespace()))
    return model, dictionary
