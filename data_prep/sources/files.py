"""Line-aligned parallel text: two files, or the two sides inside an archive as OPUS packs them."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from data_prep.config import FilePair, pair_name
from data_prep.corpus_settings import CorpusSettings
from data_prep.records import Record
from data_prep.sources.archives import Archive, is_archive
from data_prep.sources.corpus import Corpus, make_record, swapped
from data_prep.sources.streams import TextLines, open_lines
from mtmoe.errors import ConfigError, DataError
from mtmoe.files import check_input

PACKINGS = ("", ".gz", ".bz2", ".xz", ".zst")


def check_files(entries: Iterable[FilePair]) -> None:
    """Refuse files that cannot be read, before anything is made.

    Raises:
        DataError: a file is missing or a folder; names the key of the YAML file.
    """
    for entry in entries:
        check_input(f"files.source of {entry.pair}", entry.source)
        check_input(f"files.target of {entry.pair}", entry.target)


def file_corpora(entries: Iterable[FilePair]) -> list[Corpus]:
    """One corpus for each pair of files."""
    return [_file_corpus(number, entry) for number, entry in enumerate(entries, 1)]


def _file_corpus(number: int, entry: FilePair) -> Corpus:
    inputs = {
        f"files {number} {entry.pair} {role} {Path(side).name}": Path(side)
        for role, side in (("source", entry.source), ("target", entry.target))
    }
    pair = pair_name(*entry.pair.split("-"))
    read = functools.partial(extract_files, entry)
    return Corpus(f"files {number}", pair, "unknown", inputs, read)


def extract_files(entry: FilePair, counts: Counter[str]) -> Iterator[Record]:
    """The pairs of two parallel files, in the order of `pair_name`.

    Args:
        counts: see `align`.

    Raises:
        DataError: a file is missing or damaged, has no text, is not UTF-8, or the files have
            different numbers of lines.
    """
    for side in (entry.source, entry.target):
        check_input("text", side)
    with open_lines(entry.source) as source, open_lines(entry.target) as target:
        sides = (target, source) if swapped(entry.pair) else (source, target)
        yield from align(*sides, Path(entry.source).name, counts)


def align(
    first: TextLines, second: TextLines, origin: str, counts: Counter[str]
) -> Iterator[Record]:
    """Line n of one side with line n of the other.

    A line that is not UTF-8, or longer than a megabyte, goes with its translation, so that the
    others stay aligned.

    Args:
        counts: gets the number of `entries`, and how many lines were left out as `empty`,
            `not_utf8` or `too_long_line`, or had `control_characters` (which become spaces).
    """
    for one, other in zip_longest(first, second):
        if one is None or other is None:
            continue  # only to count the rest
        counts["entries"] += 1
        if fault := one.fault or other.fault:
            counts[fault] += 1
        elif record := make_record(one.text, other.text, origin, counts):
            yield record
    names = (first.stream.name, second.stream.name)
    if first.num_lines != second.num_lines:
        raise DataError(
            f"parallel files must have equal numbers of lines, but {names[0]} has "
            f"{first.num_lines} and {names[1]} has {second.num_lines}. Line n must translate "
            "line n."
        )
    if counts["empty"] == counts["entries"]:
        raise DataError(f"parallel text must not be empty, but {names[0]} is. Give another file.")


def moses_corpus(settings: CorpusSettings) -> Corpus:
    """`PATH.en` and `PATH.de`, packed or not; or the members that end so in the archive PATH.

    Raises:
        DataError: a side is not there.
    """
    inputs = {f"{settings.label} {path.name}": path for path in moses_paths(settings)}
    pair = pair_name(*settings.pair.split("-"))
    read = functools.partial(_read_moses, settings)
    return Corpus(settings.title, pair, settings.licence, inputs, read)


def moses_paths(settings: CorpusSettings) -> list[Path]:
    """The archive, or the two files.

    Raises:
        DataError: they are not there.
    """
    if is_archive(settings.path):
        check_input("corpora.path", settings.path)
        return [Path(settings.path)]
    paths = []
    for language in settings.pair.split("-"):
        names = [Path(f"{settings.path}.{language}{packing}") for packing in PACKINGS]
        found = [path for path in names if path.is_file()]
        if not found:
            raise DataError(
                f"corpora.path must have a file for each language, but {names[0]} is not there "
                "(nor packed by gzip, bzip2, xz or Zstandard). Check the path."
            )
        paths.append(found[0])
    return paths


def _read_moses(settings: CorpusSettings, counts: Counter[str]) -> Iterator[Record]:
    with contextlib.ExitStack() as stack:
        if is_archive(settings.path):
            archive = Archive(Path(settings.path))
            if archive.num_unsafe:
                counts["unsafe_members"] = archive.num_unsafe
            streams = [archive.open(name) for name in _sides(archive, settings.pair)]
            lines = [TextLines(stack.enter_context(stream)) for stream in streams]
        else:
            lines = [stack.enter_context(open_lines(path)) for path in moses_paths(settings)]
        first, second = reversed(lines) if swapped(settings.pair) else lines
        yield from align(first, second, settings.title, counts)


def _sides(archive: Archive, pair: str) -> list[str]:
    """The member of each language: the one whose name ends in it."""
    sides = []
    for language in pair.split("-"):
        found = [name for name in archive.sizes if name.endswith(f".{language}")]
        if len(found) != 1:
            raise ConfigError(
                f"the archive of {pair} must have one member that ends in .{language}, but "
                f"{archive.path} has {len(found)}. Unpack it, and name the files."
            )
        sides += found
    return sides
