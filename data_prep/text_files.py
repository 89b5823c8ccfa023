"""Where the divided text lies in a run folder."""

from __future__ import annotations

SPLITS = ("train", "valid", "test")
TEXT, MONO, TITLES = "text", "mono", "titles"  # folders
PARTS = ("text", "title")  # of a titled text
Marks = set[tuple[str, str]]  # (language, key) of strings


def text_path(split: str, pair: str, language: str) -> str:
    """One side of one split of a pair."""
    return f"{TEXT}/{split}.{pair}.{language}"


def mono_path(split: str, language: str) -> str:
    """One split of the monolingual text of a language."""
    return f"{MONO}/{split}.{language}"


def titled_path(split: str, pair: str, language: str, part: str) -> str:
    """The texts or the titles of one language; all files of a pair are aligned line by line."""
    return f"{TITLES}/{split}.{pair}.{language}.{part}"
