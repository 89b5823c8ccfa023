"""Write parallel text as token numbers with the vocabulary of a checkpoint, to train it on.

`python -m data_prep.encode MODEL.pt --text FOLDER --out DATA-BIN`; FOLDER holds train.en-de.en
beside train.en-de.de and so on, one sentence a line, under the model's names of languages.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.binarise import FIRST_PIECE, number_table
from data_prep.mmap_files import Encoder, encode_files
from data_prep.vocabulary import MODEL
from mtmoe.cli.main import Parser
from mtmoe.errors import DataError, run_command
from mtmoe.files import check_folder, check_input, decode_line, open_atomic

if TYPE_CHECKING:
    from mtmoe.data.vocabulary import Vocabulary

Job = tuple[Path, Path]  # text, and the name of what is written without its ending


def main() -> None:
    """Read the command line, encode; the folder's name goes to standard output.

    Raises:
        CheckpointError, ConfigError, DataError: a user's mistake.
    """
    args = _parser().parse_args()
    check_folder("--text", args.text)
    check_folder("--out", args.out)
    from mtmoe.checkpoint.fairseq_file import load_checkpoint

    vocabulary = load_checkpoint(args.checkpoint, is_mapped=True).vocabulary
    for name, sentences, tokens in encode_folder(vocabulary, Path(args.text), Path(args.out)):
        sys.stderr.write(f"{name}: {sentences} sentences, {tokens} tokens\n")
    sys.stdout.write(f"{args.out}\n")


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m data_prep.encode", description=__doc__)
    parser.add_argument("checkpoint", metavar="MODEL")
    parser.add_argument("--text", required=True, metavar="FOLDER")
    parser.add_argument("--out", required=True, metavar="DATA-BIN")
    return parser


def encode_folder(vocabulary: Vocabulary, text: Path, out: Path) -> list[tuple[str, int, int]]:
    """Write the `data-bin` folder `out`: dictionaries, SentencePiece model, and token numbers.

    Returns:
        (file, sentences, tokens) of each side of each pair and split.

    Raises:
        DataError: there is no text, a side is missing, longer than the other or not UTF-8, or the
            model does not know a language.
    """
    from sentencepiece import SentencePieceProcessor

    pairs = _find_pairs(vocabulary, text)
    for sides in pairs:
        _check_sides(sides)
    out.mkdir(parents=True, exist_ok=True)
    _write_vocabulary(vocabulary, out, sorted({p.name.split(".")[2] for s in pairs for p in s}))
    jobs: list[Job] = [(path, out / path.name) for sides in pairs for path in sides]
    model = SentencePieceProcessor(model_proto=vocabulary.model)
    table = number_table(model, list(vocabulary.symbols[FIRST_PIECE:]))
    encoder = Encoder(out / MODEL, table)
    sizes = encode_files(encoder, jobs, len(vocabulary.symbols))
    return [(path.name, *size) for (path, _), size in zip(jobs, sizes, strict=True)]


def _find_pairs(vocabulary: Vocabulary, text: Path) -> list[tuple[Path, Path]]:
    from mtmoe.report.parallel_text import FILE_NAME

    pairs = set()
    for path in text.glob("*"):
        match = FILE_NAME.fullmatch(path.name)
        if match and match["lang"] in (match["first"], match["second"]):
            languages = match["first"], match["second"]
            for language in languages:
                vocabulary.tag(language)  # refuses one that the model does not know
            name = f"{match['split']}.{'-'.join(languages)}"
            pairs.add((text / f"{name}.{languages[0]}", text / f"{name}.{languages[1]}"))
    if not pairs:
        raise DataError(
            f"--text must hold files such as train.en-de.en and train.en-de.de, but {text} holds "
            "none. Name the files so."
        )
    return sorted(pairs)


def _check_sides(sides: tuple[Path, Path]) -> None:
    counts = []
    for path in sides:
        check_input("text", path)
        with path.open("rb") as file:
            counts.append(sum(1 for n, line in enumerate(file, 1) if _is_text(line, path, n)))
    if counts[0] != counts[1] or not counts[0]:
        raise DataError(
            f"the sides of a pair must have equally many lines, and some, but {sides[0]} has "
            f"{counts[0]} and {sides[1]} has {counts[1]}. Mend the files."
        )


def _is_text(line: bytes, path: Path, number: int) -> bool:
    if line.endswith(b"\r\n"):
        raise DataError(
            f"lines must end with a line feed, but {path} line {number} ends as on Windows. "
            "Convert the file, e.g. by dos2unix."
        )
    decode_line(line, str(path), number)
    return True


def _write_vocabulary(vocabulary: Vocabulary, out: Path, languages: list[str]) -> None:
    with open_atomic(out / MODEL, "wb") as file:
        file.write(vocabulary.model)
    for language in languages:
        with open_atomic(out / f"dict.{language}.txt") as file:
            file.writelines(f"{symbol} 1\n" for symbol in vocabulary.symbols[FIRST_PIECE:])


if __name__ == "__main__":
    sys.exit(run_command(main))
