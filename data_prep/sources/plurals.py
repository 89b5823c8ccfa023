"""Which plural form of a translation stands for the singular, and which for the plural."""

from __future__ import annotations

import gettext
import re
from collections import Counter
from functools import cache

USUAL_COUNTS = range(2, 201)


@cache
def plural_indices(header: str) -> tuple[int, int] | None:
    """The form for one thing, and the form that most of 2 to 200 things take.

    Args:
        header: the value of a catalogue's Plural-Forms, `nplurals=2; plural=(n != 1);`.

    Returns:
        Two indices of forms, or None if the formula is invalid.
    """
    found = re.search(r"nplurals\s*=\s*(\d+)\s*;\s*plural\s*=\s*([^;]+)", header)
    if not found:
        return None
    try:
        # c2py parses the C expression of the header; the standard library's gettext relies on it.
        form_of = gettext.c2py(found[2])
        forms = [form_of(n) for n in USUAL_COUNTS]
        one = form_of(1)
    except (ValueError, ArithmeticError, RecursionError):
        return None
    if not all(0 <= form < int(found[1]) for form in (one, *forms)):
        return None
    return one, Counter(forms).most_common(1)[0][0]
