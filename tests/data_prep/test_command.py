from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.command import alone_in
from mtmoe.errors import ConfigError


def test_two_steps_do_not_work_in_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    second = alone_in(folder)
    with alone_in(folder), pytest.raises(ConfigError, match=f"one works in {folder}"):
        second.__enter__()
    assert not folder.parent.exists(), "nothing was written"
    with alone_in(folder):
        (folder / "file").touch()
    assert [path.name for path in folder.iterdir()] == ["file"]
