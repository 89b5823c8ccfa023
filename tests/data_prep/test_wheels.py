from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from data_prep.config import GettextSettings
from data_prep.sources.wheels import Package, chosen_packages, fetch_wheels, pinned_packages
from mtmoe.errors import ConfigError, DataError

CONTENT = b"a wheel"
PACKAGE = Package(
    "tiny", "1.0", "tiny-1.0.whl", hashlib.sha256(CONTENT).hexdigest(), "MIT", permissive=True
)


class FakePip:
    """Stands for `pip download`: writes `content`, or fails with `error`."""

    def __init__(self, content: bytes = CONTENT, error: str = "") -> None:
        self.content, self.error = content, error
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], stdout: Any, stderr: int) -> Any:
        self.commands.append(command)
        folder = Path(command[command.index("-d") + 1])
        if self.error:
            stdout.write(f"noise\nERROR: {self.error}\nmore noise\n")
        else:
            (folder / PACKAGE.wheel).write_bytes(self.content)
        return subprocess.CompletedProcess(command, int(bool(self.error)))


def use(monkeypatch: pytest.MonkeyPatch, pip: FakePip) -> FakePip:
    monkeypatch.setattr(subprocess, "run", pip)
    return pip


def test_a_fetched_wheel_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = use(monkeypatch, FakePip())
    assert [fetch_wheels([PACKAGE], tmp_path) for _ in range(2)] == [1, 0]
    assert len(pip.commands) == 1
    assert {"--no-deps", "--only-binary=:all:", "--require-hashes"} <= set(pip.commands[0])
    assert (tmp_path / PACKAGE.wheel).read_bytes() == CONTENT


def test_a_damaged_wheel_in_the_cache_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, FakePip())
    (tmp_path / PACKAGE.wheel).write_bytes(CONTENT[:3])
    assert fetch_wheels([PACKAGE], tmp_path) == 1
    assert (tmp_path / PACKAGE.wheel).read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakePip(b"something else"))
    with pytest.raises(DataError, match=r"checksum of tiny-1\.0\.whl must be .*, but is"):
        fetch_wheels([PACKAGE], tmp_path)
    assert not (tmp_path / PACKAGE.wheel).exists()


def test_a_failure_of_pip_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakePip(error="No matching distribution found"))
    with pytest.raises(DataError, match="but failed: No matching distribution found") as caught:
        fetch_wheels([PACKAGE], tmp_path)
    assert "\n" not in str(caught.value)
    assert "noise" in (tmp_path / "pip.log").read_text()


def test_pins_are_complete() -> None:
    packages = pinned_packages()
    assert len(packages) == 10
    assert all(len(package.sha256) == 64 and package.licence for package in packages)
    gpl = {package.name for package in packages if "GPL" in package.licence}
    assert gpl == {package.name for package in packages if not package.permissive}


def test_permissive_only_leaves_out_the_gpl() -> None:
    chosen = chosen_packages(GettextSettings(permissive_only=True))
    assert {package.name for package in chosen} == {
        "django", "django-cms", "django-oscar", "kolibri", "sphinx", "wagtail"
    }  # fmt: skip


def test_packages_must_be_pinned_and_some_must_be_left() -> None:
    with pytest.raises(ConfigError, match=r"gettext\.packages must be among .*, but one is 'gcc'"):
        chosen_packages(GettextSettings(("gcc",)))
    with pytest.raises(ConfigError, match="must name at least one package that the licences allow"):
        chosen_packages(GettextSettings(("gramps",), permissive_only=True))
