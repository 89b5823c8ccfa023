"""Files are whole or absent."""

from __future__ import annotations

import errno

import pytest

from mtmoe.errors import DataError, run_command
from mtmoe.files import open_atomic, read_lines


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
    ],
)
def test_exit_codes(capsys, error, code, message):
    def fail():
        raise error

    assert run_command(fail) == code
    assert message in capsys.readouterr().err
