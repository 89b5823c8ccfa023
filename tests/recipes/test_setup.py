"""recipes/setup.sh on a small project of its own: no download, no package but pip."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = [
    "bash",
    "cat",
    "cut",
    "dirname",
    "flock",
    "grep",
    "ls",
    "mkdir",
    "mv",
    "rm",
    "sleep",
    "tee",
    "touch",
]
NO_PYTHON = "exit 127"
ANY_PYTHON = f'exec "{sys.executable}" "$@"'
WITHOUT_VENV = f'case "$2" in *ensurepip*) exit 1;; esac\n{ANY_PYTHON}'

# A build backend inside the project makes `pip install -e` work without an index.
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
BACKEND = """
import os, pathlib, time, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    if "STALL" in os.environ:
        pathlib.Path(os.environ["STALL"]).touch()
        time.sleep(60)
    name = "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        wheel.writestr("tiny.py", "")
        info = "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\nProvides-Extra: test\\n"
        wheel.writestr("tiny-1.0.dist-info/METADATA", info)
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return name
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a folder whose name has a space."""
    project = tmp_path / "a project"
    (project / "recipes").mkdir(parents=True)
    shutil.copy(ROOT / "recipes/setup.sh", project / "recipes")
    for name, text in (
        ("setup.cfg", ""),
        ("constraints.txt", ""),
        ("pyproject.toml", PYPROJECT),
        ("backend.py", BACKEND),
    ):
        (project / name).write_text(text)
    return project


def make_tools(folder: Path, **pythons: str) -> dict[str, str]:
    """An environment whose PATH has the shell's tools and the given scripts as interpreters."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name) or pytest.skip(f"no {name} here"))
    for name, script in pythons.items():
        path = tools / name.replace("_", ".")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return {"PATH": str(tools), "HOME": str(folder), "PIP_NO_INDEX": "1"}


def run_setup(project: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(project / "recipes/setup.sh")]
    return subprocess.run(command, env=env, capture_output=True, text=True, cwd="/", check=False)


def check_refused(project: Path, env: dict[str, str], sentence: str) -> None:
    result = run_setup(project, env)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not result.stdout


def test_no_python_that_runs_is_one_sentence(project: Path, tmp_path: Path) -> None:
    env = make_tools(tmp_path, python3_11=NO_PYTHON)
    check_refused(project, env, "Python must be version 3.11 or 3.12, but none of")
    assert not (project / ".venv").exists()


def test_python_without_venv_is_one_sentence(project: Path, tmp_path: Path) -> None:
    env = make_tools(tmp_path, python3_11=WITHOUT_VENV)
    check_refused(project, env, "Python must have the modules venv and ensurepip, but ")


def test_named_python_that_does_not_run_is_one_sentence(project: Path, tmp_path: Path) -> None:
    env = make_tools(tmp_path, python3_11=ANY_PYTHON) | {"MTMOE_PYTHON": "/no/such/python"}
    check_refused(
        project, env, "MTMOE_PYTHON must name a Python 3.11 or 3.12 that runs, but is '/no"
    )


def test_folder_of_someone_else_is_not_removed(project: Path, tmp_path: Path) -> None:
    (project / ".venv").mkdir()
    (project / ".venv/thesis.txt").touch()
    env = make_tools(tmp_path, python3_11=ANY_PYTHON)
    check_refused(project, env, "or one that setup made, but is neither")
    assert (project / ".venv/thesis.txt").exists()


def test_sourcing_stops_a_careful_script(project: Path, tmp_path: Path) -> None:
    env = make_tools(tmp_path, python3_11=NO_PYTHON)
    script = f'set -euo pipefail; . "{project}/recipes/setup.sh"; echo went on'
    result = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")


@pytest.mark.long
def test_installs_once_and_again_only_when_something_changed(project: Path, tmp_path: Path) -> None:
    env = make_tools(tmp_path, python3_11=NO_PYTHON, python3=ANY_PYTHON)
    first = run_setup(project, env)
    assert first.returncode == 0, first.stderr
    assert "making" in first.stderr
    assert "Successfully installed tiny" in (project / ".venv/install.log").read_text()

    start = time.monotonic()
    assert run_setup(project, env).stderr == ""
    assert time.monotonic() - start < 1

    (project / "setup.cfg").write_text("[metadata]\n")
    again = run_setup(project, env)
    assert again.returncode == 0
    assert "installing" in again.stderr
    assert "making" not in again.stderr

    code = "import sys, tiny; print(sys.prefix)"
    script = f"set -euo pipefail; . '{project}/recipes/setup.sh'; python -c '{code}'"
    used = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, cwd="/")
    assert used.stdout.strip() == str(project / ".venv")


@pytest.mark.long
def test_killed_installation_is_made_anew_and_two_at_once_make_one(
    project: Path, tmp_path: Path
) -> None:
    env = make_tools(tmp_path, python3_12=NO_PYTHON, python3=ANY_PYTHON)
    kill_while_installing(project, env | {"STALL": str(tmp_path / "stalled")})
    assert not (project / ".venv/mtmoe-installed").exists()
    (project / ".venv/left-over").touch()

    command = ["bash", str(project / "recipes/setup.sh")]
    both = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    logs = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], logs
    assert sum("making" in log for log in logs) == 1
    assert sum("waiting for it" in log for log in logs) == 1
    assert (project / ".venv/mtmoe-installed").exists()
    assert not (project / ".venv/left-over").exists()


def kill_while_installing(project: Path, env: dict[str, str]) -> None:
    command = ["bash", str(project / "recipes/setup.sh")]
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, start_new_session=True)
    while not Path(env["STALL"]).exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
