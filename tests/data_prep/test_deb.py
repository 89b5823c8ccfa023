"""Catalogues inside Debian packages."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from data_prep.command import Run
from data_prep.config import Config
from data_prep.corpora import corpora_of
from data_prep.corpus_settings import CorpusSettings
from data_prep.sources import streams
from data_prep.sources.archives import Archive
from mtmoe.errors import DataError

PO = 'msgid ""\nmsgstr ""\n\nmsgid "Save the file"\nmsgstr "Datei sichern"\n'
NAME = "./usr/share/locale/de/LC_MESSAGES/x.po"


def tar_of(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def deb_of(path: Path, members: dict[str, bytes]) -> Path:
    """What `dpkg-deb` writes; each member has an even place."""
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        parts += [header.encode(), content, b"\n" * (len(content) % 2)]
    path.write_bytes(b"".join(parts))
    return path


def plain(data: bytes) -> bytes:
    return data


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("data.tar", plain),
        ("data.tar.gz", gzip.compress),
        ("data.tar.bz2", bz2.compress),
        ("data.tar.xz", lzma.compress),
        ("data.tar.zst", zstandard.compress),
        ("data.tar.xz/", lzma.compress),
    ],
)
def test_catalogues_of_a_package_are_read(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    others = {"./usr/share/doc/x": b"text" * 999, "./../up/de/LC_MESSAGES/y.po": PO.encode()}
    data = pack(tar_of({**others, NAME: PO.encode()}))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", name: data, "_gpg": b"x"}
    path = deb_of(tmp_path / "x.deb", members)
    config = Config(("de", "en"), corpora=(CorpusSettings("gettext", str(path)),))
    corpora = corpora_of(Run(config, tmp_path, tmp_path))
    counts: Counter[str] = Counter()
    records = [record for corpus in corpora for record in corpus.read(counts)]
    assert [record[:2] for record in records] == [("Save the file", "Datei sichern")]
    assert counts["unsafe_members"] == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [b"PK", b"!<arch>\n", b"!<arch>\n" + b"x" * 60, b"!<arch>\ndata.tar.xz     0"],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.deb").write_bytes(content)
    with pytest.raises(DataError, match=r"must hold data\.tar, but .*x\.deb does not"):
        Archive(tmp_path / "x.deb")


def test_a_cut_off_package_is_refused(tmp_path: Path) -> None:
    data = lzma.compress(tar_of({NAME: PO.encode()}))
    path = deb_of(tmp_path / "x.deb", {"debian-binary": b"2.0\n", "data.tar.xz": data})
    path.write_bytes(path.read_bytes()[: -len(data) // 2])
    with pytest.raises(DataError, match=r"x\.deb"):
        Archive(path)


def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "FREE_BYTES", 1 << 16)
    data = lzma.compress(tar_of({NAME: b"\0" * (1 << 22)}))
    path = deb_of(tmp_path / "x.deb", {"data.tar.xz": data})
    with pytest.raises(DataError, match=r"at most 200 times its packed size, but .*x\.deb"):
        Archive(path)
