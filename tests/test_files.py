"""Files are whole or absent."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mtmoe.errors import ConfigError, DataError, run_command
from mtmoe.files import check_folder, check_output, open_atomic, read_lines


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with open_atomic(path) as file:
            file.write("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_a_signal_while_the_file_is_made_leaves_nothing(tmp_path, monkeypatch):
    def make_and_stop(*args, **options):
        open(*args, **options).close()
        raise KeyboardInterrupt

    monkeypatch.setattr("mtmoe.files.open", make_and_stop, raising=False)
    with pytest.raises(KeyboardInterrupt), open_atomic(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "a.txt", tmp_path / "link"
    link.symlink_to(target)
    for text in ("first", "second"):  # the target is made, then replaced
        with open_atomic(link) as file:
            file.write(text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


def test_a_pipe_is_written_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    with open_atomic(pipe, "wb") as file:
        file.write(b"text")
    reader.join(timeout=10)
    assert read == [b"text"]
    assert pipe.is_fifo()
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_a_device_is_written_not_replaced():
    with open_atomic("/dev/null") as file:
        file.write("text")
    assert Path("/dev/null").is_char_device()


WRITE = "from mtmoe.files import open_atomic\nwith open_atomic({!r}) as f: f.write('text\\n')"


@pytest.mark.parametrize("name", ["/dev/stdout", "/proc/self/fd/1"])
def test_standard_output_by_name_keeps_what_stands_in_its_file(tmp_path, name):
    with open(tmp_path / "out", "w") as out:
        for text in ("before\n", "after\n"):
            out.write(text)
            out.flush()
            subprocess.run([sys.executable, "-c", WRITE.format(name)], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\ntext\nafter\ntext\n"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


STALL = """
import sys, time
from mtmoe.errors import run_command
from mtmoe.files import open_atomic
def stall():
    with open_atomic(sys.argv[1]) as file:
        print("begun", flush=True)
        time.sleep(60)
sys.exit(run_command(stall))
"""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGTERM, 143, "terminated.\n"), (signal.SIGINT, 130, "interrupted.\n")],
)
def test_a_signal_leaves_no_half_written_file(tmp_path, number, code, said):
    command = [sys.executable, "-c", STALL, str(tmp_path / "a")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    assert process.communicate(timeout=30)[1] == said
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == []


def test_the_signal_is_handled_as_before_after_a_command():
    before = signal.getsignal(signal.SIGTERM)
    assert run_command(lambda: None) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_paths_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "none" / "file")
    for path, message in (
        (tmp_path, "--output must be a file, but is a folder: .* Add a file name"),
        (tmp_path / "none" / "a", "--output must lie in a folder that is there, but is "),
        (tmp_path / "link", "--output must lie in a folder that is there, but is "),
        ("", "--output must be a file, but its name is empty"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_output("--output", path)
    for path in (tmp_path / "file", tmp_path / "file" / "sub"):
        with pytest.raises(ConfigError, match=r"--out must be a folder, but .*/file is a file\."):
            check_folder("--out", path)
    check_folder("--out", tmp_path / "new" / "sub")
    check_output("--output", tmp_path / "file")
    check_output("--output", None)


def test_an_output_may_not_replace_what_is_read(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    path.touch()
    link.symlink_to(path)
    for output in (path, link, f"{tmp_path}/./file"):
        with pytest.raises(ConfigError, match=r"--output must be another file than what is read"):
            check_output("--output", output, [tmp_path / "none", path])
    check_output("--output", tmp_path / "new", [path])
    check_output("--output", os.devnull, [os.devnull])
    check_output("--output", None, [path])


def test_a_folder_is_not_called_missing(tmp_path):
    with pytest.raises(DataError, match=r"text must be a file, but is a folder: .* Name a file in"):
        read_lines(tmp_path)


def test_only_line_feeds_end_a_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("a\u2028b\x85c\rd\r\n\ne".encode())
    assert read_lines(path) == ["a\u2028b\x85c\rd", "", "e"]


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\nna\xefve\n")
    with pytest.raises(DataError, match=r"a\.txt line 2 has the byte 0xef at column 3"):
        read_lines(path)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("X must be Y, but is Z."), 2, "error: X must be Y, but is Z.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "f"), 1, "No space left on device (f)"),
        (KeyboardInterrupt(), 130, "interrupted."),
        (MemoryError(), 1, "error: not enough memory."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), 1, "not enough memory."),
    ],
)
def test_exit_codes(capsys, error, code, message):
    def fail():
        raise error

    assert run_command(fail) == code
    assert message in capsys.readouterr().err
