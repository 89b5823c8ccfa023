"""What a figure was measured on: processor, versions, commit."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from benchmarks.round_robin import ROOT

PEERS = ROOT / ".venv-peers"  # of the MoE layer
TRANSLATE_PEERS = ROOT / ".venv-peers-translate"  # another transformers


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_machine() -> str:
    """The processor's name and the number of its cores."""
    return f"{_processor()}, {os.cpu_count()} cores, {num_cores()} usable"


def describe_device(name: str) -> str:
    """The machine, and its GPU for the device `cuda`."""
    if name != "cuda":
        return describe_machine()
    import torch  # the head of a table of a CPU needs none

    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}; {describe_machine()}"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_commit() -> str:
    """The commit of this working tree, "-dirty" if files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe_versions(names: Sequence[str], environment: Path | None = None) -> str:
    """ "torch 2.13.0, ..." of the packages of this environment, or of the one in a folder."""
    path = sys.path if environment is None else _site_packages(environment)
    found = []
    for name in names:
        versions = [d.version for d in metadata.distributions(name=name, path=path)]
        found.append(f"{name} {versions[0] if versions else '(none)'}")
    return ", ".join(found)


def _site_packages(environment: Path) -> list[str]:
    return [str(path) for path in environment.glob("lib/python*/site-packages")]


def today() -> str:
    """The date of the measurement."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
