from __future__ import annotations

import io
import os
import threading

import pytest

from mtmoe.inference.text import clean_line, read_chunks


def read(data: bytes, max_lines: int = 100) -> list[list[str]]:
    return list(read_chunks(io.BytesIO(data), "standard input", max_lines))


@pytest.mark.parametrize(
    "separator", ["\t", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\0"]
)
def test_no_character_inside_a_line_makes_a_second_one(separator: str) -> None:
    assert clean_line(f"one{separator}two") == "one two"
    assert read(f"one{separator}two\nthree\n".encode()) == [[f"one{separator}two", "three"]]


def test_other_characters_stay() -> None:
    assert (
        clean_line("  \ufeffÜber 10\u00a0% – «مرحبا» 你好 👍🏽 ")
        == "Über 10\u00a0% – «مرحبا» 你好 👍🏽"
    )


def test_only_a_newline_ends_a_line_and_the_last_may_lack_it() -> None:
    assert read(b"a\r\n\n b \nc") == [["a", "", " b ", "c"]]
    assert read(b"a\n\n") == [["a", ""]]
    assert read(b"") == []


def test_lines_come_in_lists_of_at_most_max_lines_across_blocks() -> None:
    lines = [f"{n} " + "x" * (n % 300) for n in range(5000)]
    chunks = read("".join(f"{line}\n" for line in lines).encode(), 64)
    assert [line for chunk in chunks for line in chunk] == lines
    assert max(map(len, chunks)) == 64


def test_bytes_that_are_not_utf8_are_replaced_and_told(caplog: pytest.LogCaptureFixture) -> None:
    data = b"one\ntwo\nM\xfcnchen\nfour\n"
    chunks = read_chunks(io.BytesIO(data), "standard input", 2)
    assert list(chunks) == [["one", "two"], ["M\ufffdnchen", "four"]]
    assert "UTF-8, but standard input line 3 has the byte 0xfc at column 2" in caplog.text


def test_a_slow_writer_gets_answers_before_it_goes_on() -> None:
    reading, writing = os.pipe()
    stop = threading.Timer(20, os.close, [writing])  # a hang ends the test with an error
    stop.start()
    with open(reading, "rb") as stream:
        chunks = read_chunks(stream, "standard input", 1000)
        os.write(writing, b"one\ntwo\nhal")
        assert next(chunks) == ["one", "two"]
        os.write(writing, b"f\n")
        assert next(chunks) == ["half"]
        stop.cancel()
        os.close(writing)
        assert next(chunks, None) is None
