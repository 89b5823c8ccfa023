"""The text of one string: white space, Unicode form, placeholders, and the key of near-copies."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")  # may stand inside a word
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # stands between words
LAYOUT = frozenset("\t\n\r")  # controls that text has for good reason

# The percent sign after a digit is a percentage ("100%ig"), not a placeholder.
PLACEHOLDER = re.compile(
    r"""
      %\(\w+\)[-#0+]*\d*(?:\.\d+)?[a-zA-Z]          # %(name)s
    | (?<!\d)%(?:\d+\$)?[-#0+]*\d*(?:\.\d+)?[diouxXeEfFgGcrsa]   # %s %d %1$s %.1f
    | %%
    | \$\{[^{}]*\}                                  # ${name}
    | \{\{?[^{}]*\}?\}                              # {name} {0} {} {{ name }}
    | \$[A-Za-z_]\w*                                # $name
    | </?[A-Za-z][^<>]*>                            # HTML and XML tags
    | &(?:[A-Za-z]+|\#\d+);                         # entities
    """,
    re.VERBOSE,
)
MAY_BE_PLACEHOLDER = re.compile("[%${<&]")  # one of these begins each
TAG = re.compile(r"<(/?)([A-Za-z][\w:.-]*)")
HTML_TAGS = frozenset(
    re.findall(
        r"\w+",
        "a abbr b blockquote br button code dd del div dl dt em form h1 h2 h3 h4 h5 h6 hr i iframe "
        "img input ins kbd label li mark ol option p pre q s samp script select small span strong "
        "style sub sup table tbody td th thead tr tt u ul var video",
    )
)

# Marks of many typographies to those of a keyboard, as Moses's normalize-punctuation does.
PLAIN = str.maketrans(
    dict.fromkeys("“”„‟«»″〝〞〟", '"')
    | dict.fromkeys("‘’‚‛′‹›´`", "'")
    | dict.fromkeys("‐‑‒–—―−", "-")
    | {"…": "...", "•": "*", "·": "*"}
)


def clean_text(text: str) -> str:
    """One line, Unicode NFC, no invisible characters, single spaces, none at the ends.

    A control character counts as a space, as it does for `mtmoe translate`.
    """
    composed = INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    return " ".join(CONTROL.sub(" ", composed).split())


def plain_punctuation(text: str) -> str:
    """Quotes, dashes and dots of many typographies as those of a keyboard."""
    return text.translate(PLAIN)


def has_control_characters(text: str) -> bool:
    """Whether `text` holds a control character other than tabs and line ends."""
    return any(found not in LAYOUT for found in CONTROL.findall(text))


def strip_placeholders(text: str) -> str:
    """The words of `text`: placeholders, tags and entities give way to a space."""
    if not MAY_BE_PLACEHOLDER.search(text):
        return " ".join(text.split())
    return " ".join(PLACEHOLDER.sub(" ", text).split())


def placeholders(text: str) -> Counter[str]:
    """The placeholders and tags of `text`, in a form that is equal in every language.

    Attributes of tags are left out (a title is translated), and so is the name of a tag that HTML
    does not have (`<filter>` is a word for people); `$name` counts as `${name}`; doubled percent
    signs and entities do not count, because translations place them by other rules.
    """
    if not MAY_BE_PLACEHOLDER.search(text):
        return Counter()
    found = (match.group() for match in PLACEHOLDER.finditer(text))
    return Counter(_canonical(item) for item in found if item != "%%" and not item.startswith("&"))


def _canonical(item: str) -> str:
    if item.startswith("<"):
        tag = TAG.match(item)
        name = tag[2].lower() if tag and tag[2].lower() in HTML_TAGS else ""
        return f"<{tag[1] if tag else ''}{name}>"
    if item.startswith("$") and not item.startswith("${"):
        return f"${{{item[1:]}}}"
    return "".join(item.split())


class _Kept(dict[int, int | None]):
    """For `str.translate`: letters, marks and numbers stay, all else goes; grows with use."""

    def __missing__(self, code: int) -> int | None:
        kept = code if unicodedata.category(chr(code))[0] in "LMN" else None
        self[code] = kept
        return kept


_KEPT = _Kept()


def copy_key(text: str) -> str:
    """What near-copies share: letters, marks and digits of the words, without case.

    Strings that differ in case, space, punctuation or placeholders have one key. A string without
    a letter or digit is its own key.
    """
    folded = unicodedata.normalize("NFKC", strip_placeholders(text)).casefold()
    return folded.translate(_KEPT) or text


def remove_accelerator(text: str, mark: str) -> str:
    """Remove a keyboard accelerator: `_File`, `&File` give `File`, `ファイル(_F)` gives `ファイル`.

    Only a text with exactly one `mark` before a letter or digit has an accelerator; with more it
    is a name such as `user_first_name`.
    """
    words = PLACEHOLDER.sub(" ", text)
    if words.count(mark) != 1 or "://" in words:
        return text
    text = re.sub(rf"\s*\({re.escape(mark)}\w\)", "", text)
    masked = PLACEHOLDER.sub(lambda match: "\0" * len(match.group()), text)
    found = re.search(rf"{re.escape(mark)}(?=\w)", masked)
    return text[: found.start()] + text[found.end() :] if found else text
