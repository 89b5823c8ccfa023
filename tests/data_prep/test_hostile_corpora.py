"""Broken and malicious text: refused in one sentence, or repaired and counted; the rest aligned."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_prep.corpora import MAKERS
from data_prep.corpus_settings import CorpusSettings
from data_prep.records import Record
from data_prep.sources import archives, streams
from mtmoe.errors import DataError, MtmoeError

NUM = 150


def sides() -> tuple[list[bytes], list[bytes]]:
    return [f"Line {n}".encode() for n in range(NUM)], [f"Zeile {n}".encode() for n in range(NUM)]


def lines(side: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in side)


def moses(folder: Path, first: bytes, second: bytes) -> CorpusSettings:
    (folder / "text.en").write_bytes(first)
    (folder / "text.de").write_bytes(second)
    return CorpusSettings("moses", str(folder / "text"), "en-de")


def read(settings: CorpusSettings) -> tuple[list[tuple[str, str]], Counter[str]]:
    counts: Counter[str] = Counter()
    records = list(MAKERS[settings.format](settings).read(counts))
    assert all(isinstance(record, Record) for record in records)
    return [(record[0], record[1]) for record in records], counts


def check_aligned(pairs: list[tuple[str, str]], expected: int) -> None:
    """Each English line has its own translation."""
    assert len(pairs) == expected
    assert all(first.split()[-1] == second.split()[-1] for first, second in pairs)


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        (b"bad \xff\xfe bytes", "not_utf8"),
        (b"x" * (streams.MAX_LINE_BYTES + 5), "too_long_line"),
        (b"", "empty"),
        (b" \t\xef\xbb\xbf ", "empty"),
        (b"\0\0", "empty"),
    ],
)
def test_a_hostile_line_goes_with_its_translation(
    tmp_path: Path, hostile: bytes, reason: str
) -> None:
    english, german = sides()
    english[3] = german[7] = hostile
    pairs, counts = read(moses(tmp_path, lines(english), lines(german)))
    check_aligned(pairs, NUM - 2)
    assert counts[reason] == 2
    assert counts["entries"] == NUM


@pytest.mark.parametrize(
    ("line", "repaired"),
    [
        (b"\xef\xbb\xbfLine\r", "Line"),
        (b"a\0b\x1bc 0", "a b c 0"),
        (b"one\x85two\xe2\x80\xa8three 0", None),
        ("שלום \u200f(123)\u202c 0".encode(), "שלום \u200f(123)\u202c 0"),
    ],
)
def test_a_line_is_repaired(tmp_path: Path, line: bytes, repaired: str | None) -> None:
    english, german = sides()
    english[0] = line
    pairs, _ = read(moses(tmp_path, lines(english), lines(german)))
    assert len(pairs) == NUM - (repaired is None)
    assert repaired is None or pairs[0] == (repaired, "Zeile 0")


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    english, _ = sides()
    with pytest.raises(DataError, match=r"must be UTF-8, but .*text.de line 1 has the byte 0xe4"):
        read(moses(tmp_path, lines(english), lines(["ä".encode("latin-1")] * NUM)))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (b"a\nb\n", b"a\n", "equal numbers of lines, but .*text.en has 2 and .*text.de has 1"),
        (b"", b"", "must not be empty"),
        (b"", b"a\n", "equal numbers of lines"),
    ],
)
def test_unequal_and_empty_files_are_refused(
    tmp_path: Path, first: bytes, second: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(moses(tmp_path, first, second))


def test_cut_off_packed_files_are_refused(tmp_path: Path) -> None:
    english, german = map(lines, sides())
    (tmp_path / "text.en.gz").write_bytes(gzip.compress(english)[:-12])
    (tmp_path / "text.de").write_bytes(german)
    with pytest.raises(DataError, match=r"text.en.gz must be whole, but is damaged"):
        read(CorpusSettings("moses", str(tmp_path / "text"), "en-de"))


def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "FREE_BYTES", 1 << 20)
    path = tmp_path / "bomb.tsv.gz"
    path.write_bytes(gzip.compress((b"a" * 9999 + b"\tb\n") * (streams.FREE_BYTES // 5000)))
    with pytest.raises(DataError, match=r"at most 200 times its packed size, but .*bomb.tsv.gz"):
        read(CorpusSettings("tsv", str(path), "en-de"))


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("evil.en")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz"])
def test_files_that_are_not_packed_as_their_name_says_are_refused(
    tmp_path: Path, packing: str
) -> None:
    for code in ("en", "de"):
        (tmp_path / f"text.{code}{packing}").write_bytes(lines(sides()[0]))
    with pytest.raises(DataError, match=rf"text.en{packing} must be whole, but is damaged"):
        read(CorpusSettings("moses", str(tmp_path / "text"), "en-de"))


@pytest.mark.parametrize(("make", "name"), [(zip_of, "de-en.txt.zip"), (tar_of, "de-en.tar.gz")])
def test_archives_are_read_in_place_and_unsafe_names_ignored(
    tmp_path: Path, make: Any, name: str
) -> None:
    english, german = map(lines, sides())
    members = {"X.de-en.en": english, "X.de-en.de": german, "README": b"hello"}
    evil = {"../up.en": b"x\n", "/root.de": b"x\n", "a\\..\\b.en": b"x\n", "a/../../c.de": b"x"}
    path = make(tmp_path / name, {**members, **evil})
    pairs, counts = read(CorpusSettings("moses", str(path), "de-en"))
    check_aligned(pairs, NUM)
    assert counts["unsafe_members"] == (5 if make is tar_of else 4)
    assert [file.name for file in tmp_path.rglob("*")] == [name]


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FREE_BYTES", 1 << 20)
    text = b"0" * 99_999 + b"\n"
    members = {"x.en": text * 20, "x.de": text * 20}
    path = zip_of(tmp_path / "bomb.zip", members)
    with pytest.raises(DataError, match=r"packed size, but .*bomb.zip:x.* It may be a bomb"):
        read(CorpusSettings("moses", str(path), "en-de"))


def test_archives_with_too_many_members_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    for path in (
        zip_of(tmp_path / "a.zip", {f"{n}": b"" for n in range(5)}),
        tar_of(tmp_path / "a.tar.gz", {f"{n}": b"" for n in range(5)}),
    ):
        with pytest.raises(DataError, match="must have at most 3 members"):
            archives.Archive(path)


def test_tabs_inside_a_table_cost_only_their_row(tmp_path: Path) -> None:
    english, german = sides()
    rows = [a + b"\t" + b for a, b in zip(english, german, strict=True)]
    rows[4] = b"one\ttwo\tthree"
    rows[5] = b"no tab"
    path = tmp_path / "text.tsv"
    path.write_bytes(lines(rows).replace(b"\n", b"\r\n"))
    pairs, counts = read(CorpusSettings("tsv", str(path), "en-de"))
    check_aligned(pairs, NUM - 2)
    assert counts["columns_differ"] == 2


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_json_lines_without_a_pair_cost_only_themselves(tmp_path: Path, packing: str) -> None:
    rows = [
        json.dumps({"translation": {"en": a.decode(), "de": b.decode()}}).encode()
        for a, b in zip(*sides(), strict=True)
    ]
    rows[0:4] = [b"{", b"[" * 100_000, b'{"translation": {"en": "a"}}', b'{"translation": 3}']
    rows[4] = rb'{"translation": {"en": "half of a pair: \ud800", "de": "b"}}'
    data = lines(rows)
    if packing == ".gz":
        data = gzip.compress(data)
    elif packing:
        data = pytest.importorskip("zstandard").compress(data)
    path = tmp_path / f"text.jsonl{packing}"
    path.write_bytes(data)
    columns = ("translation.de", "translation.en")
    pairs, counts = read(CorpusSettings("jsonl", str(path), "de-en", columns=columns))
    check_aligned(pairs, NUM - 5)
    assert pairs[0][0].startswith("Line")
    assert counts["no_pair"] == 5


TMX = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header/><body>
<tu><tuv xml:lang="EN-US"><seg>Save <bpt i="1">&lt;b&gt;</bpt>all<ept i="1">x</ept></seg></tuv>
<tuv xml:lang="de"><seg>Alles
sichern</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>Alone</seg></tuv></tu>
</body></tmx>"""


def test_a_translation_memory_gives_its_units(tmp_path: Path) -> None:
    path = tmp_path / "memory.tmx"
    path.write_text(TMX)
    pairs, counts = read(CorpusSettings("tmx", str(path), "de-en"))
    assert pairs == [("Save all", "Alles sichern")]
    assert counts == {"entries": 2, "pairs": 1, "no_pair": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TMX[:-30], "must be XML, but .*memory.tmx is not"),
        (TMX.replace('"tmx14.dtd"', '"x" [<!ENTITY a "aa">]'), "must declare no entities"),
        (TMX.replace("UTF-8", "klingon"), "must be XML, but .* is not: unknown encoding"),
        (TMX.replace("UTF-8", "Shift_JIS"), "must be XML, but .* is not: multi-byte"),
        (TMX.replace('"de"', '"fr"'), "must have units in en and de"),
    ],
)
def test_broken_translation_memories_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "memory.tmx").write_text(text)
    with pytest.raises(DataError, match=message):
        read(CorpusSettings("tmx", str(tmp_path / "memory.tmx"), "en-de"))


def test_monolingual_text_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "mono.de.gz"
    path.write_bytes(gzip.compress(lines(sides()[1]) + b"\n"))
    pairs, counts = read(CorpusSettings("text", str(path), language="de"))
    assert pairs == [(f"Zeile {n}", "") for n in range(NUM)]
    assert counts["empty"] == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "csv", "path": "x"}, "corpora.format must be among moses, tsv"),
        ({"format": "tsv", "path": "x"}, "corpora.pair must be given for the format tsv"),
        ({"format": "text", "path": "x", "pair": "en-de"}, "corpora.pair must be left out"),
        ({"format": "tsv", "path": "x", "pair": "ende"}, "corpora.pair must be two languages"),
        (
            {"format": "tsv", "path": "x", "pair": "en-de", "columns": (0, 1)},
            "corpora.columns must be two numbers from 1",
        ),
        ({"format": "text", "path": "x", "language": False}, "corpora.language must be text"),
    ],
)
def test_mistakes_in_settings_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(MtmoeError, match=message):
        CorpusSettings(**values)
