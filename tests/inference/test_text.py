from __future__ import annotations

import io
import os
import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from mtmoe.inference.text import CHUNK_BYTES, MAX_LINE_BYTES, Chunk, clean_line, read_chunks


def chunks_of(*files: bytes, is_prompt: bool = False) -> Iterator[Chunk]:
    sources = [(f"file {n}", io.BytesIO(data)) for n, data in enumerate(files, 1)]
    return read_chunks(sources, is_prompt)


def read(*files: bytes) -> list[str]:
    return [line.decode() for chunk in chunks_of(*files) for line in chunk.lines]


@pytest.mark.parametrize(
    "separator", ["\t", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\0"]
)
def test_no_character_inside_a_line_makes_a_second_one(separator: str) -> None:
    assert clean_line(f"one{separator}two") == "one two"
    assert read(f"one{separator}two\nthree\n".encode()) == [f"one{separator}two", "three"]


def test_a_lone_surrogate_is_replaced() -> None:
    assert clean_line("a\ud800b\udcff") == "a\ufffdb\ufffd"


def test_other_characters_stay() -> None:
    assert (
        clean_line("  \ufeffÜber 10\u00a0% – «مرحبا» 你好 👍🏽 ")
        == "Über 10\u00a0% – «مرحبا» 你好 👍🏽"
    )


def test_only_a_newline_ends_a_line_and_the_last_may_lack_it() -> None:
    assert read(b"a\r\n\n b \nc") == ["a", "", " b ", "c"]
    assert read(b"a\n\n") == ["a", ""]
    assert read(b"") == []


def test_files_follow_each_other_and_their_lines_are_named() -> None:
    assert read(b"a\nb", b"", b"\xef\xbb\xbfc\n") == ["a", "b", "c"]
    lines = [line for chunk in chunks_of(b"a\nb", b"c\n") for line in chunk.lines]
    assert [line.name for line in lines] == ["file 1 line 1", "file 1 line 2", "file 2 line 1"]
    assert [line.number for line in lines] == [1, 2, 3]


def test_chunks_grow_and_depend_on_the_lines_alone() -> None:
    lines = [f"{n} " + "x" * (n % 300) for n in range(9000)]
    data = "".join(f"{line}\n" for line in lines).encode()
    found = list(chunks_of(data))
    assert [line.decode() for chunk in found for line in chunk.lines] == lines
    assert [len(chunk.lines) for chunk in found[:6]] == [256, 256, 512, 1024, 2048, 2048]
    assert found[-1].num_bytes == len(data)
    ending = data.index(b"\n", 300_000) + 1
    split = list(chunks_of(data[:ending], data[ending:]))
    assert [chunk.digest for chunk in split] == [chunk.digest for chunk in found]
    other = list(chunks_of(data.replace(b"300 ", b"301 ")))
    assert other[0].digest == found[0].digest
    assert other[1].digest != found[1].digest


def test_long_lines_make_small_chunks() -> None:
    lines = [b"x" * (CHUNK_BYTES // 3)] * 10
    assert [len(chunk.lines) for chunk in chunks_of(b"\n".join(lines))] == [3, 3, 3, 1]


class Endless(io.RawIOBase):
    """A line without an end, or almost."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read1(self, size: int) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return b"x" * size if self.left else b"x" * (size - 3) + b"\nok" if size else b""


def test_an_oversized_line_keeps_its_place_and_is_not_held_in_memory() -> None:
    size = 300 * MAX_LINE_BYTES
    tracemalloc.start()
    found = [x for chunk in read_chunks([("f", Endless(size))], False) for x in chunk.lines]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(line.is_oversized, line.data) for line in found] == [(True, b""), (False, b"ok")]
    assert found[0].size == size - 3
    assert peak < 4 * MAX_LINE_BYTES


def test_the_longest_line_that_is_taken() -> None:
    data = b"x" * MAX_LINE_BYTES
    assert read(data + b"\n" + data) == [data.decode()] * 2
    assert [line.is_oversized for c in chunks_of(data + b"x\n") for line in c.lines] == [True]


def test_bytes_that_are_not_utf8_are_replaced_and_told(caplog: pytest.LogCaptureFixture) -> None:
    assert read(b"one\ntwo\nM\xfcnchen\nfour\n") == ["one", "two", "M\ufffdnchen", "four"]
    assert "UTF-8, but file 1 line 3 has the byte 0xfc at column 2" in caplog.text


def test_a_slow_writer_gets_answers_before_it_goes_on() -> None:
    reading, writing = os.pipe()
    stop = threading.Timer(20, os.close, [writing])  # a hang ends the test with an error
    stop.start()
    with open(reading, "rb") as stream:
        before = io.BytesIO(b"zero\n")
        chunks = read_chunks([("file", before), ("standard input", stream)], is_prompt=True)
        os.write(writing, b"one\ntwo\nhal")
        assert [line.data for line in next(chunks).lines] == [b"zero", b"one", b"two"]
        os.write(writing, b"f\n")
        assert [line.data for line in next(chunks).lines] == [b"half"]
        stop.cancel()
        os.close(writing)
        assert next(chunks, None) is None
