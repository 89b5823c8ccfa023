"""Where the kernels are tested: under Triton's interpreter, or on a GPU.

Whether a kernel is interpreted is decided when triton is imported, for the whole process, so that
one process cannot do both. In a process of its own, with TRITON_INTERPRET=1, all tests here run on
CPU tensors: `test_interpreter.py` starts it. Elsewhere they are the GPU's.
"""

from __future__ import annotations

import os

import pytest
import torch

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = ["cpu"] if IS_INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)]
collect_ignore = ["test_interpreter.py", "test_compile.py"] if IS_INTERPRETED else []
try:
    import triton.language  # noqa: F401
except ModuleNotFoundError:  # test_interpreter.py says so
    collect_ignore_glob = ["test_kernel_*.py", "test_compile.py"]


@pytest.fixture(params=DEVICES, scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device whose tensors the kernels take in this process."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device(request.param)
