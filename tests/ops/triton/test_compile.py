"""The kernels as compiled for A100 (sm_80) and H100 (sm_90), without a GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

MAX_SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024}  # of a block: CUDA programming guide


@pytest.mark.long
def test_every_kernel_compiles_without_spills_and_fits_into_shared_memory(tmp_path):
    """In a process of its own: compiling needs a driver that pretends."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.ops.triton.compile_report", "--json"],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    usages = json.loads(run.stdout)
    for architecture, limit in MAX_SHARED_BYTES.items():
        found = [usage for usage in usages if usage["architecture"] == architecture]
        assert {usage["kernel"] for usage in found} == kernels_in_source()
        assert [usage for usage in found if usage["spill_bytes"]] == []
        assert [usage for usage in found if usage["shared_bytes"] > limit] == []


def kernels_in_source():
    """The names of all kernels."""
    folder = Path(__file__).parents[3] / "mtmoe/ops/triton"
    sources = "".join(path.read_text("utf-8") for path in folder.glob("*.py"))
    return set(re.findall(r"^def (\w+_kernel)\(", sources, re.MULTILINE))
