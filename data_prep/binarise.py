"""Step 6: write text as token numbers, in fairseq's mmap format."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path
from typing import Any

from data_prep.command import Run, run_main
from data_prep.extract import monolingual_of, pairs_of, titled_of
from data_prep.manifest import Result, Step, run_step
from data_prep.mmap_files import UNK, Encoder, encode_files
from data_prep.text_files import MONO, PARTS, SPLITS, TITLES, mono_path, text_path, titled_path
from data_prep.vocabulary import MODEL
from mtmoe.data.vocabulary import CONTROL_SYMBOLS, language_tag
from mtmoe.files import open_atomic

FOLDER = "data-bin"
SPECIAL = ("<unk>", "<s>", "</s>")  # of SentencePiece; fairseq has its own
FIRST_PIECE = 4


def binarise(run: Run) -> None:
    """Write `data-bin/`: dictionaries, a copy of the SentencePiece model, and token numbers."""
    files = text_files(run)
    inputs = {name: run.out / name for name in (MODEL, *files)}
    settings = {"languages": sorted(run.config.languages), "symbols": CONTROL_SYMBOLS}
    run_step(run.out, Step("binarise", settings, inputs, lambda: _binarise(run, files)))


def text_files(run: Run) -> dict[str, str]:
    """The text files of all splits, and what each is called inside `data-bin/`."""
    files = {}
    for split in SPLITS:
        for pair in pairs_of(run.config):
            for language in pair.split("-"):
                files[text_path(split, pair, language)] = f"{split}.{pair}.{language}"
        for language in monolingual_of(run.config):
            path = mono_path(split, language)
            files[path] = path
        for pair in titled_of(run):
            for language in pair.split("-"):
                for part in PARTS:
                    path = titled_path(split, pair, language, part)
                    files[path] = path
    return files


def _binarise(run: Run, files: dict[str, str]) -> Result:
    from sentencepiece import SentencePieceProcessor

    for name in ("", MONO, TITLES):
        (run.out / FOLDER / name).mkdir(exist_ok=True)
    model = SentencePieceProcessor(model_file=str(run.out / MODEL))
    symbols = dictionary_symbols(model, sorted(run.config.languages))
    outputs = _write_vocabulary(run, symbols)
    encoder = Encoder(run.out / MODEL, number_table(model, symbols))
    num_symbols = len(symbols) + FIRST_PIECE
    jobs = [(run.out / text, run.out / FOLDER / name) for text, name in files.items()]
    sizes = encode_files(encoder, jobs, num_symbols)
    counts: dict[str, Any] = {"symbols": num_symbols, "files": {}}
    for name, (sentences, tokens) in zip(files.values(), sizes, strict=True):
        outputs += [f"{FOLDER}/{name}.bin", f"{FOLDER}/{name}.idx"]
        counts["files"][name] = {"sentences": sentences, "tokens": tokens}
    for name in (MONO, TITLES):  # of text that this run does not have
        with contextlib.suppress(OSError):
            (run.out / FOLDER / name).rmdir()
    return Result(outputs, counts, f"{len(files)} files, {len(symbols):,} symbols")


def number_table(model: Any, symbols: list[str]) -> tuple[int, ...]:
    """fairseq's number of each piece of `model`."""
    numbers = {piece: number for number, piece in enumerate(symbols, FIRST_PIECE)}
    pieces = (model.id_to_piece(number) for number in range(model.get_piece_size()))
    return tuple(numbers.get(piece, UNK) for piece in pieces)


def _write_vocabulary(run: Run, symbols: list[str]) -> list[str]:
    """Write the model and one dictionary a language, all equal; return their names."""
    outputs = [f"{FOLDER}/{MODEL}"]
    with open(run.out / MODEL, "rb") as source, open_atomic(run.out / outputs[0], "wb") as copy:
        shutil.copyfileobj(source, copy)
    languages = sorted(run.config.languages)
    names = write_dictionaries(run.out / FOLDER, languages, symbols)
    return outputs + [f"{FOLDER}/{name}" for name in names]


def write_dictionaries(folder: Path, languages: list[str], symbols: list[str]) -> list[str]:
    """Write one dictionary a language, all equal; return their names."""
    names = [f"dict.{language}.txt" for language in languages]
    for name in names:
        with open_atomic(folder / name) as file:
            file.writelines(f"{symbol} 1\n" for symbol in symbols)
    return names


def dictionary_symbols(model: Any, languages: list[str]) -> list[str]:
    """The symbols of fairseq's dictionary after its own four: pieces, task symbols, tags."""
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    kept = [piece for piece in pieces if piece not in SPECIAL]
    return [*kept, *CONTROL_SYMBOLS, *map(language_tag, languages)]


if __name__ == "__main__":
    sys.exit(run_main("binarise", "Write token numbers in fairseq's mmap format.", binarise))
