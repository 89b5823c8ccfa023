"""Cleaning and binarising text beside stock fairseq-preprocess on the same text, in turns.

python -m benchmarks.binarise --out RUN [--pair en-de] [--rounds 5]

RUN is a folder that data_prep.prepare made. Each call is a process of its own, as a user starts it.
Ours judges each pair of the train text by all filters (which accepted it before, so that none is
dropped), cuts it into pieces and writes numbers. fairseq-preprocess is given the pieces, so that
its time holds no cutting, and the dictionary. Dictionaries, token ids and index must be equal, byte
for byte.
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

from data_prep import clean, extract
from data_prep.binarise import (
    FIRST_PIECE,
    FOLDER,
    dictionary_symbols,
    number_table,
    write_dictionaries,
)
from data_prep.command import Run
from data_prep.config import Config, FilePair, Limits
from data_prep.mmap_files import Encoder, encode_files
from data_prep.parallel import num_cores
from data_prep.records import Record, read_records, write_records
from data_prep.text_files import text_path
from data_prep.vocabulary import MODEL
from mtmoe.cli.main import Parser
from mtmoe.errors import DataError, run_command
from mtmoe.files import check_input, open_atomic

KINDS = ("bin", "idx")
OURS, THEIRS = "mtmoe", "fairseq"


def clean_and_binarise(out: str, pair: str, folder: str) -> None:
    """Our side: `extracted/PAIR.jsonl` of `folder` to numbers, beside the dictionaries."""
    from sentencepiece import SentencePieceProcessor

    languages = pair.split("-")
    settings = json.loads(Path(out, "manifest.json").read_text())["steps"]["clean"]["settings"]
    settings = {name: settings[name] for name in settings.keys() & Limits.__dataclass_fields__}
    files = (FilePair(pair, "none", "none"),)
    config = Config(tuple(languages), files=files, limits=Limits(**settings))
    clean.clean(Run(config, Path(folder), Path(folder)))
    texts = [Path(folder, f"train.{pair}.{code}.text") for code in languages]
    with open_atomic(texts[0]) as first, open_atomic(texts[1]) as second:
        for record in read_records(Path(folder, clean.record_path(pair))):
            first.write(f"{record.first}\n")
            second.write(f"{record.second}\n")
    model = SentencePieceProcessor(model_file=f"{out}/{MODEL}")
    known = sorted(path.name.split(".")[1] for path in Path(out, FOLDER).glob("dict.*.txt"))
    symbols = dictionary_symbols(model, known)
    write_dictionaries(Path(folder), languages, symbols)
    encoder = Encoder(Path(out, MODEL), number_table(model, symbols))
    jobs = [(text, text.with_suffix("")) for text in texts]
    list(encode_files(encoder, jobs, len(symbols) + FIRST_PIECE))


def write_inputs(out: Path, pair: str, folder: Path) -> int:
    """The train text as both sides read it: records, and pieces; the number of sentences."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(out / MODEL))
    sides = []
    for code in pair.split("-"):
        text = out / text_path("train", pair, code)
        check_input("--pair", text)
        sides.append(text.read_text("utf-8").split("\n")[:-1])
        with open_atomic(folder / f"train.{code}") as file:
            file.writelines(
                f"{' '.join(pieces)}\n" for pieces in model.encode(sides[-1], out_type=str)
            )
    records = (Record(first, second, "train") for first, second in zip(*sides, strict=True))
    write_records(folder / OURS / extract.record_path(pair), records)
    return sum(map(len, sides))


def commands(out: Path, pair: str, folder: Path) -> dict[str, list[str]]:
    """The two commands; each writes to the folder of its name."""
    source, target = pair.split("-")
    call = f"from benchmarks.binarise import clean_and_binarise; clean_and_binarise({str(out)!r}, "
    preprocess = Path(sys.executable).with_name("fairseq-preprocess")
    stock = f"--source-lang {source} --target-lang {target} --workers {num_cores()}".split()
    for code, side in ((source, "src"), (target, "tgt")):
        stock += [f"--{side}dict", str(out / FOLDER / f"dict.{code}.txt")]
    stock += ["--trainpref", str(folder / "train"), "--destdir", str(folder / THEIRS)]
    return {
        OURS: [sys.executable, "-c", f"{call}{pair!r}, {str(folder / OURS)!r})"],
        THEIRS: [str(preprocess), *stock],
    }


def time_in_turns(lines: dict[str, list[str]], folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each command in each round; what an earlier round made is removed.

    Raises:
        DataError: a command fails.
    """
    seconds: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(rounds):
        (folder / OURS / "manifest.json").unlink(missing_ok=True)
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
        number = write_inputs(out, pair, folder)
        seconds = time_in_turns(commands(out, pair, folder), folder, rounds)
        codes = pair.split("-")
        files = [f"train.{pair}.{code}.{kind}" for code in codes for kind in KINDS]
        files += [f"dict.{code}.txt" for code in codes]
        same, *_ = filecmp.cmpfiles(folder / OURS, folder / THEIRS, files, shallow=False)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "sentences": number,
        "seconds": {name: [round(t, 2) for t in times] for name, times in seconds.items()},
        "sentences_per_second": {name: round(number / median) for name, median in medians.items()},
        "ratio": round(medians[THEIRS] / medians[OURS], 2),
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
