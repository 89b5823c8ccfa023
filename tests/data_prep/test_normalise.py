from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.normalise import (
    clean_text,
    copy_key,
    has_control_characters,
    placeholders,
    plain_punctuation,
    remove_accelerator,
    strip_placeholders,
)
from mtmoe.inference.text import clean_line


@given(st.text())
def test_clean_text_is_one_line_and_does_not_change_again(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once
    assert len(once.splitlines()) <= 1


def test_clean_text_folds_space_composes_and_drops_invisible_characters() -> None:
    assert clean_text(" a\n\tb\u00a0c\u202fd\u200b\u00ad \u2028 u\u0308 ") == "a b c d ü"


@given(st.sampled_from([chr(n) for n in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)]))
def test_control_characters_are_spaces_as_for_the_translator(control: str) -> None:
    text = f"ciao{control}mondo"
    assert clean_text(text) == clean_line(text) == "ciao mondo"
    assert has_control_characters(text) == (control not in "\t\n\r")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%(name)s of %(total)d", ["%(name)s", "%(total)d"]),
        ("%s is %d, %1$s, %.1f", ["%s", "%d", "%1$s", "%.1f"]),
        ("100% sure, 50%ig, 100%%", []),
        ("{name} {0} {} {{ user.name }}", ["{name}", "{0}", "{}", "{{user.name}}"]),
        ("$name and ${name}", ["${name}", "${name}"]),
        ('<a href="x">go</A><br/>', ["<a>", "</a>", "<br>"]),
        ("children of <filter>", ["<>"]),
        ("Tom &amp; Jerry", []),
        ("a < b > c", []),
    ],
)
def test_placeholders(text: str, expected: list[str]) -> None:
    assert placeholders(text) == Counter(expected)


def test_placeholders_of_a_translation_are_equal() -> None:
    english = 'Delete <em title="now">{ num, number }</em> of $total'
    german = '<em title="jetzt">{num,number}</em> von ${total} löschen'
    assert placeholders(english) == placeholders(german)
    assert placeholders("%s %s") != placeholders("%s")


@pytest.mark.parametrize(
    "copy",
    ["delete  file", "Delete file?", "DELETE FILE…", "“Delete” %(name)s file", "Delete<b>file"],
)
def test_near_copies_share_a_key(copy: str) -> None:
    assert copy_key(copy) == copy_key("Delete file")


def test_key_keeps_digits_and_marks_and_is_never_empty() -> None:
    assert copy_key("Step 1") != copy_key("Step 2")
    assert copy_key("कि") != copy_key("की")
    assert copy_key("%s: %s") == "%s: %s"
    assert copy_key("…") != copy_key("?")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("_File", "File"),
        ("Co_mpare", "Compare"),
        ("ファイル(_F)", "ファイル"),
        ("Date: %(birth_date)s", "Date: %(birth_date)s"),
        ("_Open %(file_name)s", "Open %(file_name)s"),
        ("user_first_name", "user_first_name"),
        ("a _ b", "a _ b"),
    ],
)
def test_remove_accelerator(text: str, expected: str) -> None:
    assert remove_accelerator(text, "_") == expected


def test_other_accelerators() -> None:
    assert remove_accelerator("&File", "&") == "File"
    assert remove_accelerator("R & D", "&") == "R & D"


def test_strip_placeholders_leaves_words() -> None:
    assert strip_placeholders("<b>Save</b> {name}?&nbsp;Yes") == "Save ? Yes"


def test_punctuation_of_many_typographies_becomes_plain() -> None:
    assert plain_punctuation("„Ja“ – «oui» ‘so’ l’eau…") == '"Ja" - "oui" \'so\' l\'eau...'
    assert plain_punctuation("。「日本」 naïve") == "。「日本」 naïve"
