from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtmoe.cli.main import COMMANDS, main

COMPLETE = """
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
function=$(complete -p mtmoe | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
"$function"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("shtab")
    path = tmp_path_factory.mktemp("completion") / "mtmoe.bash"
    command = [sys.executable, "-m", "mtmoe.cli.main", "completion", "bash"]
    with open(path, "wb") as file:
        subprocess.run(command, stdout=file, check=True)
    return path


def complete(script: Path, *words: str) -> list[str]:
    command = ["bash", "-c", COMPLETE, "bash", str(script), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_commands_options_and_choices(script: Path) -> None:
    assert set(complete(script, "mtmoe", "")) >= set(COMMANDS)
    assert complete(script, "mtmoe", "translate", "--targ") == ["--target-lang"]
    assert set(complete(script, "mtmoe", "translate", "--device", "c")) == {"cpu", "cuda"}


def test_bash_completes_files(script: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()
    found = complete(script, "mtmoe", "translate", "--model", f"{tmp_path}/mod")
    assert found == [f"{tmp_path}/model.pt"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_scripts_are_sound(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_without_the_library_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "shtab must be installed, but is not." in capsys.readouterr().err
