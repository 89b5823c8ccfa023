from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from mtmoe import __version__
from mtmoe.cli.main import COMMANDS, main


def test_help_lists_the_commands_without_importing_torch() -> None:
    code = (
        "import sys; from mtmoe.cli.main import main\n"
        "try: main(['--help'])\n"
        "finally: assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in found.stdout for name in COMMANDS)
    assert found.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_its_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert f"usage: mtmoe {command} " in capsys.readouterr().out
    assert callable(importlib.import_module(f"mtmoe.cli.{command.replace('-', '_')}").run)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"mtmoe {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["translate"], "the following arguments are required: --model"),
        (["score"], "the following arguments are required: --model, --target-lang, --source"),
    ],
)
def test_a_wrong_call_is_one_sentence(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert message in error
    assert "--help`" in error
    assert error.count("\n") == 1
