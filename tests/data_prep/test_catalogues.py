from __future__ import annotations

import struct

import polib
import pytest

from data_prep.sources.catalogues import Entry, read_catalogue
from mtmoe.errors import DataError

PO = """msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\\n"

msgid "Save"
msgstr "Speichern"

msgctxt "verb"
msgid "Open"
msgstr "Öffnen"

msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d Datei"
msgstr[1] "%d Dateien"
"""


def test_po_and_mo_give_the_same_entries() -> None:
    expected = [
        Entry("Save", "Speichern"),
        Entry("Open", "Öffnen", "verb"),
        Entry("%d file", "", None, "%d files", {0: "%d Datei", 1: "%d Dateien"}),
    ]
    po = read_catalogue(PO.encode(), "de.po")
    mo = read_catalogue(polib.pofile(PO).to_binary(), "de.mo")
    assert po.entries == expected
    assert sorted(mo.entries, key=lambda entry: entry.msgid) == sorted(
        expected, key=lambda entry: entry.msgid
    )
    assert po.plural_header == mo.plural_header == "nplurals=2; plural=(n != 1);"


def test_big_endian_mo_is_read() -> None:
    data = struct.pack(">7I", 0x950412DE, 0, 1, 28, 36, 0, 0)
    data += struct.pack(">2I", 2, 44) + struct.pack(">2I", 2, 47) + b"No\0Ja\0"
    assert read_catalogue(data, "x.mo").entries == [Entry("No", "Ja")]


def test_a_po_file_in_another_encoding_is_read() -> None:
    data = PO.replace("UTF-8", "ISO-8859-1").encode("latin-1")
    assert read_catalogue(data, "de.po").entries[1].msgstr == "Öffnen"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.po", b'msgid "x"\nthis is no keyword\n'),
        ("a.po", b'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8"\nmsgid "\xff"\n'),
        ("a.po", b'msgid ""\nmsgstr "charset=no-such"\n'),
        ("a.mo", b"\xde\x12\x04\x95"),
        ("a.mo", b"hello, this is no catalogue at all"),
        ("a.mo", polib.pofile(PO).to_binary()[:-20]),
        ("a.json", b"{"),
        ("a.json", b"[1]"),
    ],
)
def test_a_damaged_catalogue_is_named(name: str, data: bytes) -> None:
    with pytest.raises(DataError, match=f"catalogue must be readable, but {name} is not"):
        read_catalogue(data, name)
