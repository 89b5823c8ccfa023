"""Binarising text beside stock fairseq-preprocess on the same text, in turns.

python -m benchmarks.binarise --out RUN [--pair en-de] [--rounds 5]

RUN is a folder that data_prep.prepare made. Each call is a process of its own, as a user starts it.
Ours reads text and encodes it with SentencePiece; fairseq-preprocess is given the pieces, so that
its time holds no encoding. Token ids and index must be equal, byte for byte.
"""

from __future__ import annotations

import filecmp
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data_prep.binarise import FIRST_PIECE, FOLDER, dictionary_symbols, number_table
from data_prep.mmap_files import Encoder, encode_files
from data_prep.parallel import num_cores
from data_prep.text_files import text_path
from data_prep.vocabulary import MODEL
from mtmoe.cli.main import Parser
from mtmoe.errors import DataError, run_command
from mtmoe.files import check_input

KINDS = ("bin", "idx")


def encode(out: str, pair: str, destination: str) -> None:
    """Our side: the train text of a pair to numbers."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=f"{out}/{MODEL}")
    languages = sorted(path.name.split(".")[1] for path in Path(out, FOLDER).glob("dict.*.txt"))
    symbols = dictionary_symbols(model, languages)
    encoder = Encoder(Path(out, MODEL), number_table(model, symbols))
    files = [
        (Path(out, text_path("train", pair, code)), Path(destination, f"train.{pair}.{code}"))
        for code in pair.split("-")
    ]
    list(encode_files(encoder, files, len(symbols) + FIRST_PIECE))


def write_pieces(out: Path, pair: str, folder: Path) -> int:
    """The pieces of the train text, with spaces between, for fairseq; the number of sentences."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(out / MODEL))
    number = 0
    for code in pair.split("-"):
        text = out / text_path("train", pair, code)
        check_input("--pair", text)
        with text.open(encoding="utf-8") as lines, (folder / f"train.{code}").open("w") as pieces:
            for line in lines:
                number += 1
                pieces.write(" ".join(model.encode(line.rstrip("\n"), out_type=str)) + "\n")
    return number


def commands(out: Path, pair: str, folder: Path) -> dict[str, list[str]]:
    """The two commands; each writes to the folder of its name."""
    source, target = pair.split("-")
    call = f"from benchmarks.binarise import encode; encode({str(out)!r}, {pair!r}, "
    preprocess = Path(sys.executable).with_name("fairseq-preprocess")
    stock = f"--source-lang {source} --target-lang {target} --workers {num_cores()}".split()
    for code, side in ((source, "src"), (target, "tgt")):
        stock += [f"--{side}dict", str(out / FOLDER / f"dict.{code}.txt")]
    stock += ["--trainpref", str(folder / "train"), "--destdir", str(folder / "fairseq")]
    return {
        "mtmoe": [sys.executable, "-c", f"{call}{str(folder / 'mtmoe')!r})"],
        "fairseq": [str(preprocess), *stock],
    }


def time_in_turns(lines: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each command in each round.

    Raises:
        DataError: a command fails.
    """
    seconds: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(rounds):
        for name, line in lines.items():
            start = time.perf_counter()
            done = subprocess.run(line, capture_output=True, text=True)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise DataError(f"{name} must end well, but does not: {last}")
            seconds[name].append(time.perf_counter() - start)
    return seconds


def compare(out: Path, pair: str, rounds: int) -> dict[str, object]:
    """Sentences per second of both, the ratio, and whether what they wrote is equal."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mtmoe").mkdir()
        number = write_pieces(out, pair, folder)
        seconds = time_in_turns(commands(out, pair, folder), rounds)
        files = [f"train.{pair}.{code}.{kind}" for code in pair.split("-") for kind in KINDS]
        same, *_ = filecmp.cmpfiles(folder / "mtmoe", folder / "fairseq", files, shallow=False)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "sentences": number,
        "seconds": {name: [round(t, 2) for t in times] for name, times in seconds.items()},
        "sentences_per_second": {name: round(number / median) for name, median in medians.items()},
        "ratio": round(medians["fairseq"] / medians["mtmoe"], 2),
        "equal": sorted(same) == sorted(files),
    }


def main() -> None:
    """Print the comparison as JSON."""
    parser = Parser(prog="python -m benchmarks.binarise", description=__doc__)
    parser.add_argument("--out", required=True, help="folder that data_prep.prepare made")
    parser.add_argument("--pair", default="en-de", help="pair whose train text is binarised")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    result = compare(Path(options.out), options.pair, options.rounds)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_command(main))
