"""Parallel text of a run folder: files `{split}.{pair}.{lang}`, one sentence a line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtmoe.errors import DataError
from mtmoe.files import read_lines

FILE_NAME = re.compile(r"(?P<split>[^.]+)\.(?P<first>\w+)-(?P<second>\w+)\.(?P<lang>\w+)")


@dataclass(frozen=True)
class ParallelText:
    """Sentences and their translations, in one direction."""

    source_lang: str
    target_lang: str
    source: tuple[str, ...]
    target: tuple[str, ...]  # as many as `source`

    @property
    def direction(self) -> str:
        """The direction's name, `en-de`."""
        return f"{self.source_lang}-{self.target_lang}"

    def reverse(self) -> ParallelText:
        """The same text in the other direction."""
        return ParallelText(self.target_lang, self.source_lang, self.target, self.source)


def read_directions(folder: str | Path, split: str, limit: int | None = None) -> list[ParallelText]:
    """Every pair of `split` in both directions: all pairs forward, then all backward.

    Args:
        limit: take only so many sentences from the start of each pair.

    Raises:
        DataError: no such file, a side is missing, the sides are unequal or empty, a name or a
            line is not as it must be.
    """
    pairs = [_read_pair(Path(folder), split, *pair, limit) for pair in find_pairs(folder, split)]
    return pairs + [pair.reverse() for pair in pairs]


def find_pairs(folder: str | Path, split: str) -> Sequence[tuple[str, str]]:
    """The language pairs that have a file of `split`, sorted.

    Raises:
        DataError: there is none.
    """
    matches = (FILE_NAME.fullmatch(path.name) for path in Path(folder).glob("*"))
    found = [match for match in matches if match and match["split"] == split]
    pairs = {(m["first"], m["second"]) for m in found if m["lang"] in (m["first"], m["second"])}
    if not pairs:
        raise DataError(
            f"text folder must hold files such as {split}.en-de.en and {split}.en-de.de, "
            f"but {folder} holds none. Give the text/ folder of a prepared run, and a split of it."
        )
    return sorted(pairs)


def read_named_pairs(paths: Sequence[str | Path], limit: int | None = None) -> list[ParallelText]:
    """The pairs that the files belong to, in both directions; either side may be named, or both.

    Raises:
        DataError: a name is not as `valid.en-de.en`, or a file is not as it must be.
    """
    found = {Path(path): FILE_NAME.fullmatch(Path(path).name) for path in paths}
    for path, match in found.items():
        if match is None or match["lang"] not in (match["first"], match["second"]):
            raise DataError(
                "parallel text must be named as valid.en-de.en beside valid.en-de.de, but is "
                f"{path}. Rename it, or let the model translate it (--decoding search)."
            )
    wanted = {
        (path.parent, match["split"], match["first"], match["second"])
        for path, match in found.items()
        if match
    }
    pairs = [_read_pair(*names, limit) for names in sorted(wanted)]
    return pairs + [pair.reverse() for pair in pairs]


def _read_pair(
    folder: Path, split: str, first: str, second: str, limit: int | None
) -> ParallelText:
    paths = [folder / f"{split}.{first}-{second}.{language}" for language in (first, second)]
    source, target = (read_lines(path) for path in paths)
    if len(source) != len(target):
        raise DataError(
            f"the sides of a pair must have equally many lines, but {paths[0]} has {len(source)} "
            f"and {paths[1]} has {len(target)}. Prepare the text again."
        )
    if not source:
        raise DataError(f"text must have at least one line, but {paths[0]} is empty.")
    return ParallelText(first, second, tuple(source[:limit]), tuple(target[:limit]))
