"""Processes and their memory, as Linux tells; needs nothing but Python: peers' rows import it."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")
KIB = 1024


def tree_of(root: int) -> list[int]:
    """The processes that descend from `root`, itself included."""
    children: dict[int, list[int]] = {}
    for path in PROC.glob("[0-9]*/stat"):
        try:
            fields = path.read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [root]
    for number in found:  # grows
        found += children.get(number, [])
    return found


def pss_bytes(process: int) -> int:
    """The proportional set size of a process: a page that n share counts 1/n; 0 if it has ended."""
    return _sum_of(process, "smaps_rollup", "Pss:")


def shared_bytes(process: int) -> int:
    """Of the pages that a process has in memory, those that others have too."""
    return _sum_of(process, "smaps_rollup", "Shared_")


def peak_bytes(process: int) -> int:
    """The most that a process has had in memory."""
    return _sum_of(process, "status", "VmHWM:")


def _sum_of(process: int, file: str, start: str) -> int:
    """The sum of the lines of a file of /proc that begin so; 0 if the process has ended."""
    try:
        lines = (PROC / str(process) / file).read_text().splitlines()
    except OSError:
        return 0
    return KIB * sum(int(line.split()[1]) for line in lines if line.startswith(start))
