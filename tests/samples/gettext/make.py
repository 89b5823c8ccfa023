"""Make the sample out of a prepared run folder.

python -m data_prep.prepare --config tests/samples/gettext/source.yaml --out RUN
python tests/samples/gettext/make.py RUN
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from data_prep.records import read_records
from mtmoe.files import open_atomic

LANGUAGES = ("de", "es", "fr")


def translations(path: Path) -> dict[str, str]:
    """The most frequent translation of every English string of a cleaned pair."""
    pairs = Counter((record.first, record.second) for record in read_records(path))
    ranked = sorted(pairs, key=lambda pair: (pairs[pair], pair), reverse=True)
    return dict(reversed(ranked))


def main() -> None:
    """Write the strings that all languages have, sorted by the English."""
    run = Path(sys.argv[1])
    sides = {code: translations(run / "cleaned" / f"en-{code}.jsonl") for code in LANGUAGES}
    english = sorted(set.intersection(*map(set, sides.values())))
    sides["en"] = {string: string for string in english}
    for code, side in sides.items():
        with open_atomic(Path(__file__).with_name(f"sample.{code}")) as file:
            file.writelines(f"{side[string]}\n" for string in english)


if __name__ == "__main__":
    main()
