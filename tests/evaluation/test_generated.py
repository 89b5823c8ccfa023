from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evaluation import generated
from mtmoe.errors import run_command

TEXT = """2026-01-01 | INFO | fairseq | loading
S-1\t__en____it__<title> The quick
T-1\tIl veloce
H-1\t-0.5\tx y
D-1\t-0.5\tIl veloce
S-0\t__it__<denoising> a<mask> c
T-0\ta b c
D-0\t-0.25\ta b\tc
P-0\t-0.1
"""


def test_rows_are_read_in_the_order_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "title:en-it").write_text(TEXT)
    found = generated.read_generated(tmp_path / "title:en-it")
    assert found.sources == ["a c", "The quick"]
    assert found.hypotheses == ["a b\tc", "Il veloce"]
    assert found.references == ["a b c", "Il veloce"]


def test_the_table_has_the_model_beside_copying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "title:en-it"
    path.write_text(TEXT)
    monkeypatch.setattr(sys, "argv", ["generated", str(path)])
    assert run_command(generated.main) == 0
    out = capsys.readouterr().out
    assert "| task | sentences | model | copy |" in out
    assert "| title:en-it | 2 | " in out
    assert "chrF2++" in out


@pytest.mark.parametrize("text", ["", TEXT.replace("D-0", "X-0"), TEXT.replace("S-1", "S-7")])
def test_what_is_not_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "x").write_text(text)
    monkeypatch.setattr(sys, "argv", ["generated", str(tmp_path / "x")])
    assert run_command(generated.main) == 2
    assert "must hold S-, T- and D- lines of fairseq-generate" in capsys.readouterr().err
