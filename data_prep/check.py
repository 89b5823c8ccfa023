"""Print, for every pair, its sizes and how many held-out strings occur in train.

A string occurs in train if train has one with the same key in the same language, in any pair; case,
space, punctuation and placeholders do not count (`copy_key`). Test is compared with train and with
valid, valid with train.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

from data_prep.normalise import copy_key
from data_prep.sources.streams import open_lines
from data_prep.text_files import SPLITS, text_path
from mtmoe.cli.main import Parser
from mtmoe.errors import DataError, run_command
from mtmoe.files import check_input

OVERLAPS = (("test", "train"), ("valid", "train"), ("test", "valid"))


class Keys(NamedTuple):
    """The keys of a run folder; of train only those that are held out in some pair."""

    sides: dict[tuple[str, str], dict[str, list[str]]]  # (split, pair) -> language -> keys
    sizes: dict[tuple[str, str], int]  # (split, pair) -> lines


def read_keys(out: Path) -> Keys:
    """The keys of all text in a run folder; train is read line by line, and never held.

    Raises:
        DataError: there is no text, a file is missing, or the sides of a pair have different
            numbers of lines.
    """
    pairs = sorted({path.name.split(".")[1] for path in (out / "text").glob("train.*-*.*")})
    if not pairs:
        raise DataError(
            f"--out must hold prepared text, but {out} has none. Run data_prep.prepare."
        )
    keys = Keys({}, {})
    held_out: set[tuple[str, str]] | None = None
    for split in reversed(SPLITS):  # train comes last
        if split == "train":
            sides = (side for by_language in keys.sides.values() for side in by_language.items())
            held_out = {(language, key) for language, side in sides for key in side}
        for pair in pairs:
            _read_pair(out, split, pair, keys, held_out)
    return keys


def _read_pair(
    out: Path, split: str, pair: str, keys: Keys, wanted: set[tuple[str, str]] | None
) -> None:
    """Note the keys of a split of a pair, or those of them that are `wanted`."""
    sides: dict[str, list[str]] = {}
    sizes = set()
    for language in pair.split("-"):
        side = sides[language] = []
        number = 0
        check_input(f"text of {split}.{pair}", out / text_path(split, pair, language))
        with open_lines(out / text_path(split, pair, language)) as lines:
            for line, _ in lines:
                number += 1
                key = copy_key(line)
                if wanted is None or (language, key) in wanted:
                    side.append(key)
        sizes.add(number)
    if len(sizes) != 1:
        raise DataError(
            f"sides of {split}.{pair} must have equal numbers of lines, but have "
            f"{' and '.join(map(str, sorted(sizes)))}. Run data_prep.split again."
        )
    keys.sides[split, pair], keys.sizes[split, pair] = sides, sizes.pop()


def count_overlaps(keys: Keys) -> list[dict[str, object]]:
    """One row a pair: sizes of its splits, and strings of each side that stand in another split."""
    known: dict[tuple[str, str], set[str]] = {}  # (split, language) -> keys
    for (split, _), sides in keys.sides.items():
        for language, side in sides.items():
            known.setdefault((split, language), set()).update(side)
    rows: list[dict[str, object]] = []
    for pair in dict.fromkeys(pair for _, pair in keys.sides):
        row: dict[str, object] = {"pair": pair}
        row |= {split: keys.sizes[split, pair] for split in SPLITS}
        for held_out, other in OVERLAPS:
            row[f"{held_out}_in_{other}"] = {
                language: sum(key in known[other, language] for key in side)
                for language, side in keys.sides[held_out, pair].items()
            }
        rows.append(row)
    return rows


def num_leaks(rows: list[dict[str, object]]) -> int:
    """All overlaps together."""
    return sum(
        sum(cell.values()) for row in rows for cell in row.values() if isinstance(cell, dict)
    )


def main() -> int:
    """Print one JSON object a pair; the exit code is 1 if anything overlaps."""
    parser = Parser(prog="python -m data_prep.check", description=__doc__)
    parser.add_argument("--out", required=True, help="run folder")
    rows: list[dict[str, object]] = []
    code = run_command(lambda: _print_rows(Path(parser.parse_args().out), rows))
    return code or int(num_leaks(rows) > 0)


def _print_rows(out: Path, rows: list[dict[str, object]]) -> None:
    rows += count_overlaps(read_keys(out))
    sys.stdout.writelines(f"{json.dumps(row)}\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
