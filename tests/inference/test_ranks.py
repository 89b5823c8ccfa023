"""Whatever the number of ranks and their groups, the output is that of one process."""

from __future__ import annotations

import os
import random
import signal
import threading
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mtmoe.cli.main import main
from mtmoe.errors import CheckpointError
from mtmoe.inference.engine import Translator
from mtmoe.inference.fixed_network import FixedExperts
from tests.inference.forked_ranks import run_forked
from tests.inference.tiny_model import TEXT, write_tiny_checkpoint

NUM_LINES = 24
WORDS = " ".join(TEXT).split()
KINDS: dict[str, dict[str, Any]] = {
    "top-2": {"num_experts": 5, "top_k": 2},
    "top-1": {"num_experts": 4, "top_k": 1, "shared_ffn_dim": 16},
    "top-3": {"num_experts": 7, "top_k": 3, "activation": "swiglu"},
    "uneven": {"num_experts": 5, "experts_by_layer": "1,5", "top_k": 1},
    "experts choose": {"num_experts": 4, "encoder_routing": "expert"},
}


def write_lines(path: Path, num: int) -> Path:
    draw = random.Random(1)
    lines = (" ".join(draw.choices(WORDS, k=draw.choice([0, 1, 2, 3, 6]))) for _ in range(num))
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    write_lines(folder / "in", NUM_LINES)
    for kind, config in KINDS.items():
        (folder / kind).mkdir()
        write_tiny_checkpoint(folder / kind, **config)
    return folder


def words(folder: Path, kind: str, output: Path, *options: str) -> list[str]:
    model = folder / kind / "checkpoint_tiny.pt"
    given = ["--model", model, "--output", output, "--target-lang", "de", "--source-lang", "en"]
    given += ["--device", "cpu", "--quiet", "--scores", "--n-best", 2, "--long", "truncate"]
    return [
        "translate",
        *map(str, given),
        "--max-tokens",
        "100",
        "--max-length",
        "12",
        *options,
        str(folder / "in"),
    ]


@cache
def expected(folder: Path, kind: str, *options: str) -> bytes:
    """What one process writes."""
    output = folder / "expected"
    assert main(words(folder, kind, output, "--threads", "1", *options)) == 0
    return output.read_bytes()


def check(folder: Path, tmp_path: Path, kind: str, sizes: tuple[int, int], *options: str) -> None:
    wanted = expected(folder, kind, *options)
    assert len(set(wanted.splitlines())) > NUM_LINES / 2  # else nothing would show
    given = words(folder, kind, tmp_path / "out", *options)
    num_ranks, group = sizes
    codes, said = run_forked(num_ranks, [*given, f"--expert-parallel-size={group}"], tmp_path)
    assert codes == [0] * num_ranks, said
    assert (tmp_path / "out").read_bytes() == wanted


CELLS = [
    *((kind, (2, 2)) for kind in KINDS),
    ("top-2", (2, 1)), ("uneven", (3, 3)), ("top-3", (4, 2)), ("top-2", (4, 4)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "sizes"), CELLS)
def test_any_number_of_ranks_writes_the_same_bytes(
    folder: Path, tmp_path: Path, kind: str, sizes: tuple[int, int]
) -> None:
    check(folder, tmp_path, kind, sizes)


@pytest.mark.parametrize(
    "options",
    [("--dtype", "int8"), ("--dtype", "bfloat16"), ("--expert-memory", "1e-6"), ("--sampling",)],
)
def test_options_of_weights_and_search_go_with_ranks(
    folder: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    check(folder, tmp_path, "top-2", (2, 2), *options)


def test_explained_experts_are_those_of_one_process(folder: Path, tmp_path: Path) -> None:
    check(folder, tmp_path, "top-2", (2, 1), "--explain", "--json")


def test_scores_are_those_of_one_process(folder: Path, tmp_path: Path) -> None:
    names = {"--source": folder / "in", "--target": folder / "in", "--target-lang": "de"}
    names |= {"--model": folder / "top-2" / "checkpoint_tiny.pt", "--device": "cpu"}
    given = ["score", *(str(word) for pair in names.items() for word in pair)]
    assert main([*given, "--threads", "1", "--output", str(tmp_path / "one")]) == 0
    given += ["--output", str(tmp_path / "many"), "--expert-parallel-size", "2"]
    codes, said = run_forked(4, given, tmp_path)
    assert codes == [0] * 4, said
    one, many = ((tmp_path / name).read_text().split() for name in ("one", "many"))
    assert [float(s) for s in many] == pytest.approx([float(s) for s in one], rel=1e-4)


def count_bytes(rank: int) -> None:
    """Let a rank write how many experts it has laid out, and their bytes, when it has run a job."""
    run = Translator._run

    def run_and_count(self: Translator, job: Any, stop: threading.Event | None = None) -> Any:
        found = [m for m in self.model.modules() if isinstance(m, FixedExperts)]
        laid_out = [expert for module in found for expert in module._fixed.values()]
        size = sum(expert.num_bytes for expert in laid_out)
        Path(os.environ["COUNTS"], f"count.{rank}").write_text(f"{len(laid_out)} {size}")
        return run(self, job, stop)

    Translator._run = run_and_count  # type: ignore[method-assign]


def test_a_rank_holds_its_own_experts_only(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTS", str(tmp_path))
    counts = {}
    for num_ranks in (1, 3):
        output = tmp_path / f"out{num_ranks}"
        given = words(folder, "top-2", output, f"--expert-parallel-size={num_ranks}")
        assert run_forked(num_ranks, given, tmp_path, count_bytes)[0] == [0] * num_ranks
        read = (tmp_path.joinpath(f"count.{rank}").read_text() for rank in range(num_ranks))
        counts[num_ranks] = [tuple(map(int, text.split())) for text in read]
    (whole, all_bytes), shares = counts[1][0], counts[3]
    assert whole == 2 * 5
    assert [number for number, _ in shares] == [2 * 1, 2 * 2, 2 * 2]
    assert [size * whole for _, size in shares] == [all_bytes * number for number, _ in shares]


MISTAKES = {
    ("2", "--expert-parallel-size=3"): "must divide the number of ranks (2), but is 3. Give 1 or 2",
    ("3", "--expert-parallel-size=2"): "must divide the number of ranks (3), but is 2. Give 1 or 3",
    ("2", "--expert-parallel-size=0"): "--expert-parallel-size must be at least 1, but is 0.",
    ("6", "--expert-parallel-size=6"): "at most the number of experts of a layer (5), but is 6.",
    ("2", "--threads=2"): "--threads must be left out under torchrun, but is 2.",
    ("2", "--expert-parallel-size=2", "--explain"): "must be 1 with --explain, but is 2.",
    ("2", "--beam=0"): "beam must be between 1 and 200, but is 0.",
    ("2", "--nonsense"): "unrecognized arguments: --nonsense.",
    ("2", "--model=nowhere.pt"): "checkpoint must be a file, but is not there: nowhere.pt.",
}


@pytest.mark.parametrize("given", MISTAKES, ids=" ".join)
def test_a_mistake_is_told_once_by_rank_0(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]
) -> None:
    monkeypatch.setattr("mtmoe.errors.SECONDS_TO_TELL", 0.1)
    num_ranks, *options = given
    codes, said = run_forked(
        int(num_ranks), words(folder, "top-2", tmp_path / "out", *options), tmp_path
    )
    assert codes[0] == 2
    assert said[0].count("\n") == 1
    assert said[0].startswith("error: ")
    assert MISTAKES[given] in said[0]
    assert not any(said[1:])
    assert not list(tmp_path.glob("out*"))


def test_one_process_refuses_to_share_experts_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(folder, "top-2", tmp_path / "out", "--expert-parallel-size=2")) == 2
    assert "must be 1 in one process, but is 2. Start 2 ranks: torchrun" in capsys.readouterr().err


def run_instead(function: Any) -> None:
    """Let each job of this rank be `function`: it is sure of one only, as the free go on."""

    def run(*_: Any) -> Any:
        return function()

    Translator._run = run  # type: ignore[method-assign]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def misbehave() -> None:
    raise RuntimeError("out of everything")


def complain() -> None:
    raise CheckpointError("the weights must be better, but are bad. Train.")


def load_badly(self: Translator, *_: Any) -> None:
    raise MemoryError("no room")


def on_last_rank(rank: int) -> Any:
    if rank == int(os.environ["WORLD_SIZE"]) - 1:
        name = os.environ["TROUBLE"]
        if name == "load":
            Translator.__init__ = load_badly  # type: ignore[method-assign,assignment]
        else:
            run_instead(globals()[name])


@pytest.mark.parametrize("sizes", [(2, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize(
    ("trouble", "code", "sentence"),
    [
        ("die", 1, "error: rank {} of {} must live until the end, but has died."),
        ("misbehave", 1, "error: rank {} must do its part, but has failed, see above."),
        ("complain", 2, "error: the weights must be better, but are bad. Train."),
        ("load", 1, "error: rank {} must do its part, but has failed, see above."),
    ],
)
def test_the_trouble_of_one_rank_ends_all(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sizes: tuple[int, int],
    trouble: str,
    code: int,
    sentence: str,
) -> None:
    monkeypatch.setenv("TROUBLE", trouble)
    num_ranks, group = sizes
    given = words(folder, "top-2", tmp_path / "out", f"--expert-parallel-size={group}")
    codes, said = run_forked(num_ranks, given, tmp_path, on_last_rank)
    assert codes[0] == code, said
    assert said[0].splitlines()[-1].startswith(sentence.format(num_ranks - 1, num_ranks)), said
    assert not any(said[1:])
    assert set(codes[1:]) <= {0, -signal.SIGKILL}
    assert not list(tmp_path.glob("out*"))
    if trouble == "misbehave":
        assert "RuntimeError: out of everything" in said[0]
