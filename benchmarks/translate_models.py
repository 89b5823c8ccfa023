"""Models of random weights and sentences of made-up words for the translation benchmark."""

from __future__ import annotations

import contextlib
import io
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import Tensor, nn

from benchmarks.translate_calls import Work, write_work
from mtmoe.checkpoint.fairseq_file import (
    MODEL_NAME,
    WEIGHT_PREFIX,
    pack_vocabulary,
    write_checkpoint,
)
from mtmoe.cli.main import main as run_mtmoe
from mtmoe.config import EncoderTags, TransformerConfig, build_config, flatten_config
from mtmoe.data.batching import source_tags, tag_source
from mtmoe.data.vocabulary import PAD, SPECIAL_SYMBOLS, Vocabulary, language_tag
from mtmoe.modules.router import Router
from mtmoe.modules.tokens import Tokens
from mtmoe.modules.transformer import Transformer

SOURCE, TARGET = LANGUAGES = ("en", "de")
NUM_EXPERTS, TOP_K, MOE_EVERY, NUM_KEPT = 16, 2, 2, 4
SHARPER = {  # factors of first weights: without, a model repeats one word whatever it reads
    "query.weight": 4.0, "key.weight": 4.0, "attention.out.weight": 15.0,
    "fc_in.weight": 3.0, "fc_out.weight": 3.0, "experts.w_in": 3.0, "experts.w_out": 3.0,
}  # fmt: skip
NUM_ROWS = 32  # sentences that routers are balanced with
MEDIAN_WORDS, SPREAD, MOST_WORDS = 18, 0.6, 64  # of a sentence; logarithmic normal


@dataclass(frozen=True)
class Sizes:
    """The sizes of the models and of the work."""

    layers: int  # of the encoder, and of the decoder
    dim: int  # D
    ffn_dim: int  # F
    num_symbols: int  # V
    sentences: int
    length: int  # tokens of each output, the end included


FULL = Sizes(layers=6, dim=512, ffn_dim=2048, num_symbols=32_000, sentences=64, length=33)
QUICK = Sizes(layers=2, dim=64, ffn_dim=128, num_symbols=500, sentences=8, length=6)


def prepare(folder: Path, sizes: Sizes, has_peers: bool) -> None:
    """Write the models and the work into `folder`.

    `dense` has F everywhere, `moe16` 16 experts of F on every second layer, of which a token takes
    2, `dense_wide` as many active weights as that, `pruned4` 4 of the experts.

    Args:
        has_peers: write the folders that Hugging Face's models are read from, too.
    """
    vocabulary = make_vocabulary(sizes.num_symbols)
    wide = sizes.ffn_dim * (MOE_EVERY + TOP_K - 1) // MOE_EVERY
    moe = {"moe_every": MOE_EVERY, "num_experts": NUM_EXPERTS, "top_k": TOP_K}
    for name, values in (
        ("dense", {"moe_every": 0}),
        ("dense_wide", {"moe_every": 0, "ffn_dim": wide}),
        ("moe16", moe),
    ):
        write_model(folder / f"{name}.pt", sizes, vocabulary, **values)
    full, pruned = str(folder / "moe16.pt"), str(folder / "pruned4.pt")
    keep = ["--keep", str(NUM_KEPT), "--criterion", "random"]
    _run_mtmoe("prune", full, *keep, "--output", pruned)
    for name in ("dense", "moe16") if has_peers else ():
        out = str(folder / f"{name}_huggingface")
        _run_mtmoe("convert", str(folder / f"{name}.pt"), "--to", "huggingface", "--output", out)
    write_work(make_work(sizes, vocabulary), folder)


def _run_mtmoe(*words: str) -> None:
    with contextlib.redirect_stdout(sys.stderr):
        code = run_mtmoe(words)
    assert code == 0, (words, code)


def make_vocabulary(num_symbols: int) -> Vocabulary:
    """`num_symbols` symbols: special ones, words that are one piece each, tags."""
    tags = [language_tag(language) for language in LANGUAGES]
    words = [f"w{n}" for n in range(num_symbols - len(SPECIAL_SYMBOLS) - len(tags))]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words), model_writer=model, model_type="word", vocab_size=len(words),
        use_all_vocab=True, normalization_rule_name="identity", num_threads=1, minloglevel=2,
    )  # fmt: skip
    return Vocabulary((*SPECIAL_SYMBOLS, *(f"▁{word}" for word in words), *tags), model.getvalue())


def write_model(path: Path, sizes: Sizes, vocabulary: Vocabulary, **values: Any) -> None:
    """A checkpoint of random weights whose translations depend on their sources.

    Args:
        values: fields of TransformerConfig and RouterConfig beside those of `sizes`.
    """
    shape = {
        "encoder_layers": sizes.layers, "decoder_layers": sizes.layers, "embed_dim": sizes.dim,
        "ffn_dim": sizes.ffn_dim, "attention_heads": num_heads(sizes.dim),
    }  # fmt: skip
    config = build_config(TransformerConfig, shape | values)
    model = Transformer(config, len(vocabulary.symbols), PAD, seed=1).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            endings = [end for end in SHARPER if name.endswith(end)]
            parameter.mul_(SHARPER[endings[0]] if endings else 1.0)
    balance_routers(model)
    state = {
        "cfg": {
            "model": {**flatten_config(config), "_name": MODEL_NAME},
            "task": {"_name": "multitask_translation", "encoder_tags": EncoderTags.both.value},
        },
        "model": {WEIGHT_PREFIX + name: value for name, value in model.state_dict().items()},
        "task_state": pack_vocabulary(vocabulary, [f"{SOURCE}-{TARGET}"]),
    }
    write_checkpoint(path, state)


def balance_routers(model: Transformer) -> None:
    """Take out of all router rows what tokens have in common: then experts share them evenly.

    Training does so by its balance loss. With first weights, few experts would be used at a step.
    """

    def centre(router: nn.Module, inputs: tuple[Tensor, Tokens]) -> None:
        weight, mean = router.get_parameter("weight"), inputs[0].mean(0)  # (E, D), (D,)
        weight.sub_(torch.outer(weight @ mean, mean) / mean.square().sum())

    routers = [module for module in model.modules() if isinstance(module, Router)]
    hooks = [router.register_forward_pre_hook(centre) for router in routers]
    draw = torch.Generator().manual_seed(2)
    size = (NUM_ROWS, MEDIAN_WORDS)
    source, target = (
        torch.randint(len(SPECIAL_SYMBOLS), model.embedding.num_embeddings, size, generator=draw)
        for _ in range(2)
    )
    with torch.no_grad():
        model(source, target)
    for hook in hooks:
        hook.remove()


def num_heads(dim: int) -> int:
    """Attention heads of 64 dimensions, as in base models."""
    return max(1, dim // 64)


def make_work(sizes: Sizes, vocabulary: Vocabulary) -> Work:
    """Sentences whose lengths are spread as those of real text are."""
    draw = random.Random(1)
    words = vocabulary.symbols[len(SPECIAL_SYMBOLS) : -len(LANGUAGES)]
    text = []
    for _ in range(sizes.sentences):
        length = round(MEDIAN_WORDS * draw.lognormvariate(0, SPREAD))
        chosen = draw.choices(words, k=min(max(length, 2), MOST_WORDS))
        text.append(" ".join(word.removeprefix("▁") for word in chosen))
    tags = source_tags(vocabulary, EncoderTags.both, SOURCE, TARGET)
    ids = [tag_source(tags, line) for line in vocabulary.encode(text)]
    return Work(
        text=text,
        pieces=[[vocabulary.symbols[i] for i in line] for line in ids],
        ids=ids,
        num_symbols=len(vocabulary.symbols),
        start=vocabulary.tag(TARGET),
        heads=num_heads(sizes.dim),
        length=sizes.length,
    )
