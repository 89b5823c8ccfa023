"""Wheels with catalogues, made on the spot."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.sources.gettext import Wheel
from data_prep.sources.wheels import Package

MakeWheel = Callable[..., Wheel]


@pytest.fixture
def make_wheel(tmp_path: Path) -> MakeWheel:
    def make(
        members: dict[str, str | bytes], accelerator: str | None = None, context_bar: bool = False
    ) -> Wheel:
        path = tmp_path / "tiny-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        package = Package("tiny", "1.0", path.name, "", "MIT", True, accelerator, context_bar)
        return Wheel(path, package)

    return make
