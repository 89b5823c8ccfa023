"""Settings of all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.toy_data import write_toy_data

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data-bin folder of toy languages; not to be changed."""
    return write_toy_data(tmp_path_factory.mktemp("toy") / "data-bin")
