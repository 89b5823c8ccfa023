"""The manifest of a run folder, and the rule by which a step is skipped.

`manifest.json` holds, for each step: its settings, the checksums of what it read and wrote, and
counts. It holds no times and no absolute paths, so equal input gives an equal file. An entry is
written after the outputs of its step are on disk: what has no entry, or another checksum than its
entry says, is made again.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from mtmoe.errors import DataError
from mtmoe.files import check_input, open_atomic, sha256

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Result:
    """What a step made."""

    outputs: list[str]  # relative to the run folder
    counts: dict[str, Any]
    summary: str  # one line for the log


@dataclass(frozen=True)
class Step:
    """One step: what its result depends on, and how to make it."""

    name: str
    settings: dict[str, Any]
    inputs: Mapping[str, Path]  # label in the manifest -> file
    make: Callable[[], Result]


def read_manifest(out: Path) -> dict[str, Any]:
    """The manifest of `out`; empty where there is none.

    Raises:
        DataError: the file is damaged.
    """
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        manifest = None
    if not _is_manifest(manifest):
        raise DataError(
            f"manifest must be JSON, but {out / MANIFEST} is not as it was written. Remove it."
        )
    return manifest


def _is_manifest(manifest: Any) -> TypeGuard[dict[str, Any]]:
    """Whether it has, by step, entries whose outputs are names and checksums."""
    if not isinstance(manifest, dict):
        return False
    steps = manifest.get("steps", {})
    entries = steps.values() if isinstance(steps, dict) else [None]
    return all(isinstance(e, dict) and isinstance(e.get("outputs", {}), dict) for e in entries)


def write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    """Replace the manifest of `out`."""
    with open_atomic(out / MANIFEST) as file:
        json.dump(manifest, file, indent=1, ensure_ascii=False)
        file.write("\n")


def run_step(out: Path, step: Step) -> bool:
    """Make `step`, unless the manifest says that it is made and nothing has changed.

    Returns:
        True if it was made, False if it was skipped.
    """
    inputs = {label: _checksum(path, step.name) for label, path in step.inputs.items()}
    wanted = json.loads(json.dumps({"settings": step.settings, "inputs": inputs}))
    entry = read_manifest(out).get("steps", {}).get(step.name)
    if entry and _is_current(out, entry, wanted):
        logger.info("%s: unchanged, skipped", step.name)
        return False
    start = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    result = step.make()
    _remove_stale(out, (entry or {}).get("outputs", {}), result.outputs)
    outputs = {name: sha256(out / name) for name in sorted(result.outputs)}
    manifest = read_manifest(out)
    steps = manifest.setdefault("steps", {})
    steps[step.name] = {**wanted, "outputs": outputs, "counts": result.counts}
    write_manifest(out, manifest)
    logger.info("%s: %s (%.1f s)", step.name, result.summary, time.monotonic() - start)
    return True


def _checksum(path: Path, step: str) -> str:
    if not path.exists():
        raise DataError(
            f"input of {step} must be there, but {path} is not. Run the steps before it."
        )
    check_input(f"input of {step}", path)
    return sha256(path)


def _is_current(out: Path, entry: dict[str, Any], wanted: dict[str, Any]) -> bool:
    if any(entry.get(key) != value for key, value in wanted.items()):
        return False
    outputs = entry.get("outputs", {})
    return all((out / n).is_file() and sha256(out / n) == known for n, known in outputs.items())


def _remove_stale(out: Path, before: Mapping[str, str], now: list[str]) -> None:
    """Remove what the step wrote for other settings, so that nobody takes it for current."""
    for name in set(before) - set(now):
        (out / name).unlink(missing_ok=True)
