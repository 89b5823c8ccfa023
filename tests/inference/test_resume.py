from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from mtmoe.errors import ConfigError, DataError
from mtmoe.inference.resume import Mark, ResumableOutput, model_fingerprint

SETTINGS = {"beam": 4, "model": "0123"}


def open_output(path: Path, **settings: object) -> ResumableOutput:
    return ResumableOutput(str(path), {**SETTINGS, **settings})


def interrupt(path: Path, *texts: bytes) -> None:
    """Write `texts`, a line each, and then fail."""
    with contextlib.suppress(KeyboardInterrupt), open_output(path).open(is_resumed=False) as output:
        for number, text in enumerate(texts, 1):
            output.write(text, Mark(number, number, f"digest {number}"))
        raise KeyboardInterrupt


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_a_whole_run_leaves_nothing_but_the_output(path: Path) -> None:
    path.write_bytes(b"before")
    with open_output(path).open(is_resumed=False) as output:
        output.write(b"one\n", Mark(1, 4, "x"))
        assert path.read_bytes() == b"before"
        assert names(path.parent) == ["out", "out.part", "out.part.json"]
    assert path.read_bytes() == b"one\n"
    assert names(path.parent) == ["out"]


def test_an_empty_run_makes_an_empty_file(path: Path) -> None:
    with open_output(path).open(is_resumed=True):
        pass
    assert (path.read_bytes(), names(path.parent)) == (b"", ["out"])


def test_a_run_that_has_done_nothing_leaves_nothing(path: Path) -> None:
    interrupt(path)
    assert names(path.parent) == []


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_file_that_no_run_left_is_not_written_to(path: Path, is_resumed: bool) -> None:
    path.with_name("out.part").write_text("mine")
    with (
        pytest.raises(
            ConfigError, match=r"out\.part must be an output that an earlier run left, but"
        ),
        open_output(path).open(is_resumed=is_resumed) as output,
    ):
        output.write(b"one\n", Mark(1, 4, "x"))
    assert path.with_name("out.part").read_text() == "mine"
    assert names(path.parent) == ["out.part"]


def test_a_kill_before_the_first_note_is_ours(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.suppress(KeyboardInterrupt), open_output(path).open(is_resumed=False) as output:
        monkeypatch.setattr(output, "_leave", lambda: None)  # as if killed
        output.write(b"one\n", Mark())
        raise KeyboardInterrupt
    assert names(path.parent) == ["out.part", "out.part.json"]
    with open_output(path).open(is_resumed=True) as output:
        output.write(b"1\n", Mark(1, 1, "x"))
    assert path.read_bytes() == b"1\n"


def test_a_name_that_is_too_long_for_the_note_leaves_nothing(tmp_path: Path) -> None:
    output = open_output(tmp_path / ("a" * 249))
    with pytest.raises(OSError, match="name too long"), output.open(is_resumed=False):
        output.write(b"one\n", Mark(1, 4, "x"))
    assert names(tmp_path) == []


@pytest.mark.parametrize("unnoted", [b"", b"twenty\n", b"tw"])
def test_what_came_after_the_last_note_is_written_again(
    path: Path, unnoted: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    interrupt(path, b"one\n")
    assert "1 lines are done" in caplog.text
    with open(path.with_name("out.part"), "ab") as file:
        file.write(unnoted)
    with open_output(path).open(is_resumed=True) as output:
        assert output.mark == Mark(1, 1, "digest 1", output_bytes=4)
        output.write(b"two\n", Mark(2, 2, "digest 2"))
    assert path.read_bytes() == b"one\ntwo\n"
    assert names(path.parent) == ["out"]


def test_without_resume_a_run_starts_over_and_says_so(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupt(path, b"one\n", b"two\n")
    with open_output(path, beam=1).open(is_resumed=False) as output:
        assert output.mark == Mark()
        output.write(b"1\n", Mark(1, 1, "x"))
    assert "an earlier run left 2 lines of" in caplog.text
    assert path.read_bytes() == b"1\n"


def test_a_run_that_fails_at_once_drops_nothing(path: Path) -> None:
    interrupt(path, b"one\n")
    interrupt(path)
    with open_output(path).open(is_resumed=True) as output:
        assert output.mark.num_lines == 1
    assert path.read_bytes() == b"one\n"


def test_a_kill_before_the_last_rename_is_made_good(path: Path) -> None:
    interrupt(path, b"one\n")
    note = path.with_name("out.part.json")
    found = json.loads(note.read_text())
    found["mark"]["is_complete"] = True
    note.write_text(json.dumps(found))
    with open_output(path).open(is_resumed=True) as output:
        assert output.mark.is_complete
    assert (path.read_bytes(), names(path.parent)) == (b"one\n", ["out"])
    note.write_text(json.dumps(found))  # killed after the rename
    with open_output(path).open(is_resumed=True) as output:
        assert output.mark.is_complete
    assert (path.read_bytes(), names(path.parent)) == (b"one\n", ["out"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam": 5}, "beam must be as in the interrupted run .4., but is 5"),
        ({"new": 1}, "new must be as in the interrupted run .None., but is 1"),
        ({"model": "9"}, "--model must be that of the interrupted run, but is another one"),
    ],
)
def test_other_settings_are_refused(path: Path, settings: dict[str, object], message: str) -> None:
    interrupt(path, b"one\n")
    output = open_output(path, **settings).open(is_resumed=True)
    with pytest.raises(ConfigError, match=message), output:
        pass
    assert names(path.parent) == ["out.part", "out.part.json"]


def test_damage_is_refused(path: Path) -> None:
    interrupt(path, b"one\n")
    path.with_name("out.part").write_bytes(b"on")
    with pytest.raises(DataError, match="at least 4 bytes, but has 2"):
        open_output(path).read_note()
    path.with_name("out.part.json").write_text("{}")
    with pytest.raises(DataError, match="must be a note of mtmoe, but is damaged"):
        open_output(path).read_note()


def test_two_runs_do_not_write_one_file(path: Path) -> None:
    with open_output(path).open(is_resumed=False) as output:
        output.write(b"one\n", Mark(1, 1, "x"))
        second = open_output(path).open(is_resumed=True)
        with pytest.raises(ConfigError, match="another one is writing"), second:
            pass
    assert path.read_bytes() == b"one\n"


def test_a_link_stays_a_link(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to("out")
    with open_output(link).open(is_resumed=False) as output:
        output.write(b"one\n", Mark(1, 1, "x"))
    assert link.is_symlink()
    assert path.read_bytes() == b"one\n"


def test_a_model_is_known_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    (tmp_path / "b").write_bytes(b"x" * 3_000_000)
    same = model_fingerprint(tmp_path / "a")
    assert same == model_fingerprint(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"x" * 2_999_999 + b"y")
    assert same != model_fingerprint(tmp_path / "b")
    folder = model_fingerprint(tmp_path)
    (tmp_path / "c").write_bytes(b"")
    assert folder != model_fingerprint(tmp_path)
