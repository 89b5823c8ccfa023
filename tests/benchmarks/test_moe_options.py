from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import moe_options
from benchmarks.machine import num_cores
from benchmarks.moe_cell import Cell
from benchmarks.moe_options import parse_arguments
from mtmoe.errors import ConfigError


def test_cells_are_all_combinations() -> None:
    words = "--experts 4,8 --tokens 32 --top-k 1,2 --dtypes float32 --dim 16 --ffn-dim 64"
    args = parse_arguments(words.split(), "")
    assert args.cells == [
        Cell(32, experts, top_k, "float32", 16, 64) for top_k in (1, 2) for experts in (4, 8)
    ]


def test_a_profile_is_of_one_cell() -> None:
    args = parse_arguments(["--profile", "8192,16,2,bfloat16"], "")
    assert args.cells == [Cell(8192, 16, 2, "bfloat16", 512, 2048)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rounds 0", "--rounds must be a whole number of at least 1, but is '0'."),
        ("--experts 4,x", "--experts must be a whole number of at least 1, but is 'x'."),
        ("--tokens ,", "--tokens must be a whole number of at least 1, but is ''."),
        ("--experts 1,4", r"--top-k must be at most the fewest --experts \(1\), but is 2."),
        ("--threads 999", rf"--threads must be at most the cores .*\({num_cores()}\), but is 999."),
        ("--dtypes float16", "--dtypes must be of float32, bfloat16, but is 'float16'."),
        ("--passes bwd", "--passes must be of fwd, fwdbwd, but is 'bwd'."),
        ("--dim 15", "--dim must be even, but is 15."),
        ("--json /no/folder/x", "--json must lie in a folder that is there, but is /no/folder/x."),
        ("--plot /", "--plot must be a file, but is a folder: /."),
        ("--profile 64,4", "--profile must be tokens, experts, top-k and dtype .*, but is '64,4'."),
        ("--profile 64,4,1,int8", "--dtypes must be of float32, bfloat16, but is 'int8'."),
        ("--bogus", "unrecognized arguments: --bogus."),
    ],
)
def test_wrong_options_are_refused(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_arguments(words.split(), "")


def test_peers_that_are_not_installed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moe_options, "PEERS", tmp_path)
    with pytest.raises(ConfigError, match=r"Run first: bash benchmarks/peers.sh\."):
        parse_arguments(["--peers"], "")


def test_a_gpu_must_be_there_and_has_no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="a GPU must be there"):
        parse_arguments(["--device", "cuda"], "")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert {cell.device for cell in parse_arguments(["--device", "cuda"], "").cells} == {"cuda"}
    with pytest.raises(ConfigError, match="--profile must be without --device cuda"):
        parse_arguments(["--device", "cuda", "--profile", "32,4,1,float32"], "")
