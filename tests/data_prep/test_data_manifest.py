from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.manifest import Result, Step, read_manifest, run_step
from mtmoe.errors import DataError


class Recorder:
    """A step that copies its input and counts how often it is run."""

    def __init__(self, out: Path) -> None:
        self.out, self.runs, self.names = out, 0, ["b.txt"]

    def step(self, **settings: int) -> Step:
        return Step("copy", settings, {"a.txt": self.out / "a.txt"}, self.make)

    def make(self) -> Result:
        self.runs += 1
        for name in self.names:
            (self.out / name).write_text((self.out / "a.txt").read_text())
        return Result(self.names, {"lines": 1}, "one line")


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    (tmp_path / "a.txt").write_text("hello\n")
    return Recorder(tmp_path)


def test_an_unchanged_step_is_skipped(recorder: Recorder) -> None:
    assert [run_step(recorder.out, recorder.step(size=1)) for _ in range(3)] == [True, False, False]
    entry = read_manifest(recorder.out)["steps"]["copy"]
    assert entry["settings"] == {"size": 1}
    assert entry["counts"] == {"lines": 1}
    assert entry["inputs"].keys() == {"a.txt"}
    assert entry["inputs"]["a.txt"] == entry["outputs"]["b.txt"]


@pytest.mark.parametrize("change", ["input", "output", "missing", "setting", "manifest"])
def test_a_changed_step_is_made_again(recorder: Recorder, change: str) -> None:
    out = recorder.out
    run_step(out, recorder.step(size=1))
    if change == "input":
        (out / "a.txt").write_text("hello again\n")
    elif change == "output":
        (out / "b.txt").write_text("hel")
    elif change == "missing":
        (out / "b.txt").unlink()
    elif change == "manifest":
        (out / "manifest.json").unlink()
    assert run_step(out, recorder.step(size=2 if change == "setting" else 1))
    assert (out / "b.txt").read_text() == (out / "a.txt").read_text()


def test_a_killed_step_leaves_no_entry(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def die() -> Result:
        (recorder.out / "b.txt").write_text("hel")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_step(recorder.out, Step("copy", {}, {"a.txt": recorder.out / "a.txt"}, die))
    assert read_manifest(recorder.out) == {}
    assert run_step(recorder.out, recorder.step())


def test_outputs_of_other_settings_are_removed(recorder: Recorder) -> None:
    recorder.names = ["b.txt", "c.txt"]
    run_step(recorder.out, recorder.step(size=1))
    recorder.names = ["b.txt"]
    run_step(recorder.out, recorder.step(size=2))
    assert not (recorder.out / "c.txt").exists()


def test_what_others_write_into_the_manifest_stays(recorder: Recorder) -> None:
    (recorder.out / "manifest.json").write_text('{"note": 1}')
    run_step(recorder.out, recorder.step())
    assert read_manifest(recorder.out)["note"] == 1


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"input of copy must be there, but .*a\.txt is not"):
        run_step(tmp_path, Recorder(tmp_path).step())


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest must be JSON, but .*manifest\.json is not"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", ["[]", '{"steps": []}', '{"steps": {"copy": 3}}', "\xff"])
def test_a_manifest_of_another_form_is_refused(recorder: Recorder, content: str) -> None:
    (recorder.out / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"manifest must be JSON, but .* is not as it was"):
        run_step(recorder.out, recorder.step())
