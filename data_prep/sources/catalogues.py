"""Reading one catalogue of translations: .po (polib), .mo, and JSON messages."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, field

from mtmoe.errors import DataError


@dataclass(frozen=True)
class Entry:
    """One string of a catalogue and its translation, or its plural forms."""

    msgid: str
    msgstr: str = ""
    context: str | None = None
    plural_id: str = ""
    plural_forms: dict[int, str] = field(default_factory=dict)
    default: str | None = None  # the English of a symbolic msgid, where a comment gives it
    skip: str | None = None  # "obsolete" or "fuzzy"


@dataclass(frozen=True)
class Catalogue:
    """The entries of one file, without its header."""

    entries: list[Entry]
    plural_header: str = ""  # the value of Plural-Forms


def read_catalogue(data: bytes, name: str) -> Catalogue:
    """Parse a catalogue; `name`, with its ending, tells the format and stands in errors.

    Raises:
        DataError: the file is damaged.
    """
    try:
        if name.endswith(".po"):
            return _read_po(data)
        return _read_mo(data) if name.endswith(".mo") else _read_json(data)
    except (ValueError, OSError, struct.error, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"catalogue must be readable, but {name} is not: {reason}.") from None


DEFAULT = re.compile(r'Default:\s*"(.*)"\s*$', re.DOTALL)


def _read_po(data: bytes) -> Catalogue:
    import polib

    charset = re.search(rb"charset=([\w-]+)", data[:5000])
    encoding = charset[1].decode() if charset and charset[1] != b"CHARSET" else "utf-8"
    try:
        parsed = polib.pofile(data.decode(encoding).removeprefix("\ufeff"))
    except LookupError as error:  # an encoding that does not exist
        raise ValueError(str(error)) from None
    return Catalogue([_from_polib(e) for e in parsed], parsed.metadata.get("Plural-Forms", ""))


def _from_polib(entry: object) -> Entry:
    get = entry.__getattribute__
    default = DEFAULT.search(get("comment"))
    skip = "obsolete" if get("obsolete") else "fuzzy" if "fuzzy" in get("flags") else None
    return Entry(
        get("msgid"),
        get("msgstr"),
        get("msgctxt"),
        get("msgid_plural") or "",
        {int(index): form for index, form in get("msgstr_plural").items()},
        re.sub(r'"\s*\n\s*"', " ", default[1]) if default else None,
        skip,
    )


MO_MAGIC = 0x950412DE


def _read_mo(data: bytes) -> Catalogue:
    """Read the GNU MO format (gettext manual, section "The Format of GNU MO Files")."""
    order = "<" if struct.unpack_from("<I", data)[0] == MO_MAGIC else ">"
    magic, _, count, ids_at, texts_at = struct.unpack_from(f"{order}5I", data)
    if magic != MO_MAGIC:
        raise ValueError("it does not start as a .mo file does")
    header, entries = "", []
    for index in range(count):
        msgid = _mo_string(data, order, ids_at + 8 * index)
        text = _mo_string(data, order, texts_at + 8 * index)
        if msgid:
            entries.append(_from_mo(msgid, text))
        else:
            header = text
    plural = re.search(r"^Plural-Forms:(.*)$", header, re.MULTILINE)
    return Catalogue(entries, plural[1].strip() if plural else "")


def _mo_string(data: bytes, order: str, at: int) -> str:
    length, start = struct.unpack_from(f"{order}2I", data, at)
    if start + length > len(data):
        raise ValueError("it ends too early")
    return data[start : start + length].decode("utf-8")


def _from_mo(msgid: str, text: str) -> Entry:
    context, separator, rest = msgid.partition("\x04")
    singular, _, plural = (rest if separator else msgid).partition("\0")
    forms = dict(enumerate(text.split("\0"))) if plural else {}
    return Entry(singular, "" if plural else text, context if separator else None, plural, forms)


def _read_json(data: bytes) -> Catalogue:
    """Read messages as JavaScript front ends keep them: one object, symbolic name -> text."""
    content = json.loads(data)
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    return Catalogue([Entry(k, v) for k, v in sorted(content.items()) if isinstance(v, str)])
