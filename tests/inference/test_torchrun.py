"""`mtmoe translate` as a user starts it on several ranks, and as it may end."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from mtmoe.cli.main import main
from tests.inference.test_ranks import write_lines
from tests.inference.tiny_model import write_tiny_checkpoint
from tests.torchrun import BIN, ROOT, kill_rank

pytestmark = pytest.mark.long
NUM_LINES = 1200
LIMIT = 100.0  # seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torchrun")
    write_lines(folder / "in", NUM_LINES)
    write_tiny_checkpoint(folder, num_experts=5)
    assert main([*words(folder, folder / "expected"), "--threads", "1"]) == 0
    return folder


def words(folder: Path, output: Path, *options: str) -> list[str]:
    given = ["--model", str(folder / "checkpoint_tiny.pt"), "--output", str(output)]
    given += ["--target-lang", "de", "--source-lang", "en", "--device", "cpu", "--quiet"]
    return ["translate", *given, "--long", "truncate", *options, str(folder / "in")]


def start(num_ranks: int, words: list[str]) -> subprocess.Popen[str]:
    """Run torchrun."""
    command = [str(BIN / "torchrun"), "--nproc_per_node", str(num_ranks), str(BIN / "mtmoe")]
    return subprocess.Popen(
        [*command, *words],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"OMP_NUM_THREADS": "1", "PATH": str(BIN), "PYTHONPATH": str(ROOT)},
    )


def wait_for_chunk(process: subprocess.Popen[str], output: Path) -> None:
    """Until the first lines are done."""
    note = output.with_name(f"{output.name}.part.json")
    deadline = time.monotonic() + LIMIT
    while not note.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def end(process: subprocess.Popen[str]) -> tuple[str, float]:
    """What it said, and the seconds until it had ended."""
    begun = time.monotonic()
    said = process.communicate(timeout=LIMIT)[0]
    return said, time.monotonic() - begun


@pytest.mark.parametrize(("group", "killed"), [(1, 1), (2, 1)])
def test_a_killed_rank_ends_all_and_other_ranks_go_on(
    folder: Path, tmp_path: Path, group: int, killed: int
) -> None:
    output = tmp_path / "out"
    process = start(2, words(folder, output, f"--expert-parallel-size={group}"))
    wait_for_chunk(process, output)
    time.sleep(0.5)  # else rank 0 may be reading, and torchrun ends it before it hears of the death
    kill_rank(process, killed)
    said, seconds = end(process)
    assert process.returncode == 1
    assert f"error: rank {killed} of 2 must live until the end, but has died." in said
    assert "lines are done, in" in said
    assert seconds < 20
    assert not output.exists()
    process = start(3, words(folder, output, "--expert-parallel-size=3", "--resume"))
    said, _ = end(process)
    assert process.returncode == 0, said
    assert output.read_bytes() == (folder / "expected").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGINT, "interrupted."), (signal.SIGTERM, "terminated.")]
)
def test_a_signal_ends_all_and_one_process_goes_on(
    folder: Path, tmp_path: Path, number: signal.Signals, word: str
) -> None:
    output = tmp_path / "out"
    process = start(2, words(folder, output, "--expert-parallel-size=2"))
    wait_for_chunk(process, output)
    process.send_signal(number)
    said, seconds = end(process)
    assert process.returncode != 0
    assert said.count(word) == 1, said
    assert "lines are done, in" in said
    assert seconds < 20
    assert not output.exists()
    assert main([*words(folder, output), "--resume", "--threads", "1"]) == 0
    assert output.read_bytes() == (folder / "expected").read_bytes()


PROGRAM = """
import sys
from mtmoe.inference.engine import Translator
from mtmoe.inference.ranks import join_ranks

with join_ranks(expert_parallel_size=2) as ranks:
    translator = Translator.from_checkpoint(sys.argv[1], device="cpu", ranks=ranks)
    if ranks.is_first:
        print(*translator.translate(["Save the file.", "Close all windows!"], "en", "de"), sep="|")
    else:
        translator.serve()
"""


def test_a_program_translates_on_ranks(folder: Path, tmp_path: Path) -> None:
    from mtmoe.inference.engine import Translator

    model, program = folder / "checkpoint_tiny.pt", tmp_path / "program.py"
    program.write_text(PROGRAM)
    found = subprocess.run(
        [str(BIN / "torchrun"), "--nproc_per_node", "4", str(program), str(model)],
        capture_output=True, text=True, check=False, timeout=LIMIT,
        env={"OMP_NUM_THREADS": "1", "PATH": str(BIN), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    lines = ["Save the file.", "Close all windows!"]
    expected = Translator.from_checkpoint(model, threads=1).translate(lines, "en", "de")
    assert found.stdout == "|".join(expected) + "\n", found.stderr
