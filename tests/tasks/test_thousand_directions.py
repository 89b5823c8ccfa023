"""A thousand direction files: start-up in seconds, little memory, few open files."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mtmoe.data.mmap_text import HEADER, MAGIC, MAX_OPEN, MmapText
from mtmoe.data.vocabulary import EOS, SPECIAL_SYMBOLS
from tests.fairseq_run import SETTINGS

ROOT = Path(__file__).parents[2]
NUM_PAIRS, NUM_SENTENCES = 1000, 1000


def write_text(prefix, lengths):
    """What fairseq's builder writes, without its import and its loops."""
    numbers = np.full(lengths.sum(), 9, np.uint16)
    numbers[lengths.cumsum() - 1] = EOS
    places = (lengths.cumsum() - lengths).astype("<i8") * 2
    head = HEADER.pack(*MAGIC, 8, len(lengths))
    Path(f"{prefix}.idx").write_bytes(head + lengths.astype("<i4").tobytes() + places.tobytes())
    Path(f"{prefix}.bin").write_bytes(numbers.tobytes())


def write_folder(folder, toy_data, num_pairs, num_sentences):
    """Pairs of made-up languages with English."""
    languages = ["en", *(f"x{n:04d}" for n in range(num_pairs))]
    text = (toy_data / "dict.aa.txt").read_text("utf-8")
    pieces = [line for line in text.splitlines() if not line.startswith("__")]
    symbols = [*pieces, *(f"__{language}__ 1" for language in languages)]
    for name in ("en", "x0000"):
        (folder / f"dict.{name}.txt").write_text("\n".join(symbols) + "\n", "utf-8")
    (folder / "sentencepiece.model").write_bytes((toy_data / "sentencepiece.model").read_bytes())
    lengths = np.random.default_rng(1).integers(2, 20, num_sentences)
    for language in languages[1:]:
        for side in ("en", language):
            write_text(folder / f"train.en-{language}.{side}", lengths)
    for side in ("en", "x0000"):
        write_text(folder / f"valid.en-x0000.{side}", lengths[:10])
    return len(pieces) + len(SPECIAL_SYMBOLS)


@pytest.mark.long
def test_a_thousand_files_start_in_seconds_and_little_memory(toy_data, tmp_path):
    write_folder(tmp_path, toy_data, NUM_PAIRS, NUM_SENTENCES)
    options = ["--max-update", "2", "--epoch-updates", "20", "--sampling-temperature", "5"]
    options += [
        "--save-dir",
        str(tmp_path / "run"),
        "--disable-validation",
        "--batch-mix",
        "single",
    ]
    program = Path(sys.executable).with_name("fairseq-train")
    command = [program, tmp_path, "--user-dir", ROOT / "mtmoe", *SETTINGS, *options]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = usage.ru_utime + usage.ru_stime  # what else the machine does does not count
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (tmp_path / "log").read_text()
    print(f"{seconds:.1f} s, {usage.ru_maxrss / 2**20:.2f} GiB")  # noqa: T201
    assert usage.ru_maxrss < 2**20, "KiB"
    assert seconds < 20, "of one core"


def test_texts_are_opened_when_read_and_closed_again(tmp_path):
    texts = []
    for number in range(MAX_OPEN + 50):
        lengths = np.array([2, 3, 1 + number % 5])
        write_text(tmp_path / str(number), lengths)
        texts.append(MmapText(tmp_path / str(number)))
    before = len(os.listdir("/proc/self/fd"))
    for number, text in enumerate(texts):
        assert text[1].tolist() == [9, 9, EOS]
        assert text[2].tolist() == [9] * (number % 5) + [EOS]
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * MAX_OPEN
    assert before < resource.getrlimit(resource.RLIMIT_NOFILE)[0]
