from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polib
import pytest

from data_prep.records import Record
from data_prep.sources.gettext import Wheel, extract_language
from data_prep.sources.wheels import Package
from mtmoe.errors import DataError

MakeWheel = Callable[..., Wheel]

HEADER = (
    'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n'
    'Plural-Forms: nplurals=2; plural=(n != 1);\\n"\n\n'
)
DE = "tiny/locale/de/LC_MESSAGES/app.po"
EN = "tiny/locale/en/LC_MESSAGES/app.po"


def extract(wheel: Wheel, language: str = "de") -> tuple[list[tuple[str, str]], Counter[str]]:
    counts: Counter[str] = Counter()
    records = list(extract_language(wheel, language, counts))
    return [(record.first, record.second) for record in records], counts


def test_header_empty_fuzzy_and_obsolete_entries_are_left_out(make_wheel: MakeWheel) -> None:
    po = HEADER + (
        'msgid "Save"\nmsgstr "Speichern"\n\nmsgid "Nothing"\nmsgstr ""\n\n'
        '#, fuzzy\nmsgid "Guess"\nmsgstr "Rate"\n\n#~ msgid "Old"\n#~ msgstr "Alt"\n'
    )
    pairs, counts = extract(make_wheel({DE: po}))
    assert pairs == [("Save", "Speichern")]
    assert counts == {"entries": 4, "empty": 1, "fuzzy": 1, "obsolete": 1, "pairs": 1}


def test_plural_entries_give_singular_and_plural(make_wheel: MakeWheel) -> None:
    po = HEADER + 'msgid "%d file"\nmsgid_plural "%d files"\nmsgstr[0] "%d Datei"\n'
    pairs, _ = extract(make_wheel({DE: po + 'msgstr[1] "%d Dateien"\n'}))
    assert pairs == [("%d file", "%d Datei"), ("%d files", "%d Dateien")]


def test_an_invalid_plural_formula_skips_plural_entries_only(make_wheel: MakeWheel) -> None:
    po = HEADER.replace("n != 1", "what?") + (
        'msgid "a file"\nmsgid_plural "files"\nmsgstr[0] "eine Datei"\nmsgstr[1] "Dateien"\n\n'
        'msgid "Save"\nmsgstr "Speichern"\n'
    )
    pairs, counts = extract(make_wheel({DE: po}))
    assert pairs == [("Save", "Speichern")]
    assert counts["plural_invalid"] == 1


def test_english_of_a_symbolic_msgid(make_wheel: MakeWheel) -> None:
    symbols = (
        '#. Default: "Save \\"all\\""\nmsgid "label_save"\nmsgstr "Alles „sichern“"\n\n'
        'msgid "list:user:hello.txt"\nmsgstr "Hallo"\n\n'
        'msgid "label_unknown"\nmsgstr "Unbekannt"\n\nmsgid "e-mail"\nmsgstr "Mail"\n'
    ).replace('\\"', "'")
    english = HEADER + 'msgid "list:user:hello.txt"\nmsgstr "Hello"\n'
    pairs, counts = extract(make_wheel({DE: HEADER + symbols, EN: english}))
    assert pairs == [("Save 'all'", "Alles „sichern“"), ("Hello", "Hallo"), ("e-mail", "Mail")]
    assert counts["no_english"] == 1


def test_a_default_of_several_lines_is_joined(make_wheel: MakeWheel) -> None:
    po = HEADER + '#. Default: "One"\n#. "two."\nmsgid "help_x"\nmsgstr "Eins zwei."\n'
    assert extract(make_wheel({DE: po}))[0] == [("One two.", "Eins zwei.")]


def test_json_messages_pair_through_the_english_file(make_wheel: MakeWheel) -> None:
    path = "tiny/locale/{}/LC_MESSAGES/app-messages.json"
    german = '{"A.b": "Ja", "A.c": "{n, plural, one {ein} other {viele}}", "A.d": "Allein"}'
    english = '{"A.b": "Yes", "A.c": "{n, plural, one {one} other {many}}"}'
    pairs, counts = extract(make_wheel({path.format("de"): german, path.format("en"): english}))
    assert pairs == [("Yes", "Ja")]
    assert counts == {"entries": 3, "pairs": 1, "icu_choice": 1, "no_english": 1}


def test_pairs_with_other_placeholders_are_dropped(make_wheel: MakeWheel) -> None:
    po = HEADER + (
        'msgid "Hi %(name)s"\nmsgstr "Hallo %(nom)s"\n\nmsgid "<b>Go</b>"\nmsgstr "Los"\n\n'
        'msgid "{a} {b}"\nmsgstr "{b} {a}"\n'
    )
    pairs, counts = extract(make_wheel({DE: po}))
    assert pairs == [("{a} {b}", "{b} {a}")]
    assert counts["placeholders_differ"] == 2


def test_accelerators_and_contexts(make_wheel: MakeWheel) -> None:
    po = HEADER + (
        'msgid "_File"\nmsgstr "_Datei"\n\nmsgid "person|Title"\nmsgstr "Titel"\n\n'
        'msgctxt "verb"\nmsgid "Open"\nmsgstr "Öffnen"\n\nmsgid "a|b"\nmsgstr "a|b"\n'
    )
    wheel = make_wheel({DE: po}, accelerator="_", context_bar=True)
    assert list(extract_language(wheel, "de", Counter())) == [
        Record("File", "Datei", "tiny"),
        Record("Title", "Titel", "tiny", "person"),
        Record("Open", "Öffnen", "tiny", "verb"),
        Record("a|b", "a|b", "tiny"),
    ]


def test_accelerators_of_other_packages_stay(make_wheel: MakeWheel) -> None:
    po = HEADER + 'msgid "Field user_name here"\nmsgstr "Feld user_name hier"\n'
    assert extract(make_wheel({DE: po}))[0] == [("Field user_name here", "Feld user_name hier")]


def test_po_is_preferred_and_odd_paths_are_ignored(make_wheel: MakeWheel) -> None:
    mo = polib.pofile(HEADER + 'msgid "From mo"\nmsgstr "Aus mo"\n').to_binary()
    po = HEADER + 'msgid "From po"\nmsgstr "Aus po"\n'
    odd = {
        f"{start}/de/LC_MESSAGES/odd.po": po
        for start in ("../evil", "/root", "a/../b", "a/.hidden")
    }
    wheel = make_wheel(
        {
            DE: po,
            DE.replace(".po", ".mo"): mo,
            "other/locale/de_AT/LC_MESSAGES/app.mo": mo,
            "tiny/testing/tiny-de.po": po,
            **odd,
        }
    )
    assert extract(wheel)[0] == [("From po", "Aus po")]
    assert extract(wheel, "de_at")[0] == [("From mo", "Aus mo")]
    assert wheel.languages() == {"de", "de_at"}


def test_a_wheel_that_is_no_zip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.whl"
    path.write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"archive must be whole, but .*bad\.whl is damaged"):
        Wheel(path, Package("bad", "1", "bad.whl", "", "MIT", True))
