"""Step 6: write text as token numbers, in fairseq's mmap format."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from data_prep.command import Run, run_main
from data_prep.extract import pairs_of
from data_prep.manifest import Result, Step, run_step
from data_prep.split import SPLITS, text_path
from data_prep.vocabulary import MODEL
from mtmoe.files import open_atomic, read_lines

FOLDER = "data-bin"
SPECIAL = ("<unk>", "<s>", "</s>")  # of SentencePiece; fairseq has its own
EOS, UNK = 2, 3  # in fairseq's dictionary
FIRST_PIECE = 4


def language_tag(language: str) -> str:
    """The token that stands for a language."""
    return f"__{language}__"


def binarise(run: Run) -> None:
    """Write `data-bin/`: dictionaries, a copy of the SentencePiece model, and token numbers."""
    files = [
        (split, pair, language)
        for split in SPLITS
        for pair in pairs_of(run.config)
        for language in pair.split("-")
    ]
    inputs = {name: run.out / name for name in (MODEL, *(text_path(*file) for file in files))}
    settings = {"languages": sorted(run.config.languages)}
    run_step(run.out, Step("binarise", settings, inputs, lambda: _binarise(run, files)))


def _binarise(run: Run, files: list[tuple[str, str, str]]) -> Result:
    from sentencepiece import SentencePieceProcessor

    (run.out / FOLDER).mkdir(exist_ok=True)
    model = SentencePieceProcessor(model_file=str(run.out / MODEL))
    symbols = dictionary_symbols(model, sorted(run.config.languages))
    outputs = _write_vocabulary(run, symbols)
    numbers = {piece: number for number, piece in enumerate(symbols, FIRST_PIECE)}
    table = [numbers.get(model.id_to_piece(i), UNK) for i in range(model.get_piece_size())]
    counts: dict[str, Any] = {"symbols": len(symbols) + FIRST_PIECE, "files": {}}
    for split, pair, language in files:
        lines = read_lines(run.out / text_path(split, pair, language))
        encoded = [[*(table[i] for i in ids), EOS] for ids in model.encode(lines)]
        prefix = f"{FOLDER}/{split}.{pair}.{language}"
        write_mmap(run.out / prefix, encoded, len(symbols) + FIRST_PIECE)
        outputs += [f"{prefix}.bin", f"{prefix}.idx"]
        sizes = {"sentences": len(encoded), "tokens": sum(map(len, encoded))}
        counts["files"][f"{split}.{pair}.{language}"] = sizes
    return Result(outputs, counts, f"{len(files)} files, {len(symbols):,} symbols")


def _write_vocabulary(run: Run, symbols: list[str]) -> list[str]:
    """Write the model and one dictionary a language, all equal; return their names."""
    outputs = [f"{FOLDER}/{MODEL}"]
    with open(run.out / MODEL, "rb") as source, open_atomic(run.out / outputs[0], "wb") as copy:
        shutil.copyfileobj(source, copy)
    for language in sorted(run.config.languages):
        outputs.append(f"{FOLDER}/dict.{language}.txt")
        with open_atomic(run.out / outputs[-1]) as file:
            file.writelines(f"{symbol} 1\n" for symbol in symbols)
    return outputs


def dictionary_symbols(model: Any, languages: list[str]) -> list[str]:
    """The symbols of fairseq's dictionary after its own four: pieces, then language tags."""
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    return [p for p in pieces if p not in SPECIAL] + [language_tag(code) for code in languages]


def write_mmap(prefix: Path, sentences: list[list[int]], num_symbols: int) -> None:
    """Write `PREFIX.bin` and `PREFIX.idx` with fairseq's own builder, each whole or not at all."""
    import torch
    from fairseq.data import indexed_dataset

    dtype = indexed_dataset.best_fitting_int_dtype(num_symbols)
    parts = [Path(f"{prefix}.{kind}") for kind in ("bin", "idx")]
    drafts = [path.with_name(f".{path.name}.part") for path in parts]
    try:
        builder = indexed_dataset.MMapIndexedDatasetBuilder(str(drafts[0]), dtype=dtype)
        for sentence in sentences:
            builder.add_item(torch.tensor(sentence))
        builder.finalize(str(drafts[1]))
        for draft, path in zip(drafts, parts, strict=True):
            _flush(draft)
            os.replace(draft, path)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(run_main("binarise", "Write token numbers in fairseq's mmap format.", binarise))
