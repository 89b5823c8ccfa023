"""Other programs that tests compare with, each in an environment of its own.

bash tests/interop/make_oracles.sh FOLDER
export MTMOE_HF_PYTHON=FOLDER/hf/bin/python
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
HF = "MTMOE_HF_PYTHON"


def require_oracle(variable: str) -> str:
    """The interpreter that `variable` names; skips the test where there is none."""
    python = os.environ.get(variable, "")
    if not Path(python).is_file():
        pytest.skip(
            f"{variable} must name the python of the oracle's environment; make it by "
            "`bash tests/interop/make_oracles.sh FOLDER` and set what that prints"
        )
    return python


def ask(variable: str, script: str, jobs: list[dict[str, Any]], folder: Path) -> list[Any]:
    """The answers of an oracle's script to `jobs`, which are handed over in `folder`."""
    python = require_oracle(variable)
    request = folder / "jobs.json"
    request.write_text(json.dumps(jobs))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-W", "ignore", str(HERE / script), str(request)],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    answers: list[Any] = json.loads(done.stdout)
    return answers
