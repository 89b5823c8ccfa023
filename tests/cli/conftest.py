"""A tiny model, and `mtmoe translate` with it in this process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from mtmoe.cli.main import main
from tests.inference.tiny_model import write_tiny_checkpoint

LAST = "Delete the selected files?"
TEXT = f"Save\n\n{LAST}\n"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("model")))


@pytest.fixture
def run(model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Gives the exit code, standard output and standard error, without a summary."""

    def call(
        *options: str, text: bytes = TEXT.encode(), model: str = model
    ) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
        code = main(["translate", "--model", model, "--device", "cpu", "--quiet", *options])
        return code, *capsys.readouterr()

    return call
