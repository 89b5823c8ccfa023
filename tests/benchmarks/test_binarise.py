from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_both_programs_write_the_same_bytes(tmp_path: Path) -> None:
    data = ROOT / "tests/samples/gettext/data.yaml"
    prepare = ["data_prep.prepare", "--config", str(data), "--out", str(tmp_path / "run")]
    measure = ["benchmarks.binarise", "--out", str(tmp_path / "run"), "--rounds", "1"]
    for words in (prepare, measure):
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["equal"]
    assert found["sentences"] > 500
    assert set(found["sentences_per_second"]) == {"mtmoe", "fairseq"}
