"""A data-bin folder of two toy languages: `bb` is `aa` in capitals, in reverse order."""

from __future__ import annotations

import io
import random
from pathlib import Path

import sentencepiece

from data_prep.mmap_files import write_mmap
from mtmoe.data.vocabulary import EOS, SPECIAL_SYMBOLS

LANGUAGES = ("aa", "bb", "cc")
PAIRS = {"aa-bb": (0, 1), "aa-cc": (0, 2)}
SPLITS = {"train": (0, 600), "valid": (600, 640), "test": (640, 661)}


def toy_sentences() -> list[tuple[str, str, str]]:
    """661 sentences in `aa`, `bb` and `cc` (the same words twice)."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(1, 4))) for _ in range(40)]
    lines = [" ".join(draw.choices(words, k=draw.randint(1, 6))) for _ in range(661)]
    return [(s, " ".join(reversed(s.upper().split())), f"{s} {s}") for s in lines]


def write_toy_data(folder: Path) -> Path:
    """Write the folder; fairseq's format, as data_prep.binarise writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    sentences = toy_sentences()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(side for line in sentences for side in line),
        model_writer=model, vocab_size=100, model_type="bpe", num_threads=1, minloglevel=2,
    )  # fmt: skip
    (folder / "sentencepiece.model").write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    names = [pieces.id_to_piece(n) for n in range(pieces.get_piece_size())]
    kept = [name for name in names if name not in SPECIAL_SYMBOLS]
    symbols = [*SPECIAL_SYMBOLS, *kept, *(f"__{language}__" for language in LANGUAGES)]
    for language in LANGUAGES:
        text = "".join(f"{symbol} 1\n" for symbol in symbols[len(SPECIAL_SYMBOLS) :])
        (folder / f"dict.{language}.txt").write_text(text, "utf-8")
    index = {symbol: n for n, symbol in enumerate(symbols)}
    for pair, sides in PAIRS.items():
        for split, (start, end) in SPLITS.items():
            for side, language in zip(sides, pair.split("-"), strict=True):
                lines = [line[side] for line in sentences[start:end]]
                encoded = pieces.encode(lines, out_type=str)
                ids = [[*(index[piece] for piece in line), EOS] for line in encoded]
                write_mmap(folder / f"{split}.{pair}.{language}", ids, len(symbols))
    return folder
