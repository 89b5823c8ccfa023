"""Each line of options that docs/parallel.md gives for a layout of the paper trains on 8 ranks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from torch.testing import assert_close

from tests.system.test_layouts_training import train
from tests.toy_data import write_toy_data

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^\| (E[^ ]*) \| `(--[^`]*)` \|", re.MULTILINE)
LINES = dict(LINE.findall((ROOT / "docs/parallel.md").read_text("utf-8")))
MODEL = ["--num-experts", "8", "--shared-ffn-dim", "16", "--max-update", "3"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_toy_data(tmp_path_factory.mktemp("paper") / "data-bin")


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """One process, by the number of batches of an update."""
    folder, found = tmp_path_factory.mktemp("alone"), {}

    def trained(count):
        if count not in found:
            options = [*MODEL, "--update-freq", str(count)]
            found[count] = train(1, data, folder / str(count), *options)
        return found[count]

    return trained


def test_the_table_names_every_combination_of_the_paper():
    assert list(LINES) == ["E", "E+D", "E+Z", "E+D+M", "E+D+Z", "E+Z-Off+M"]


@pytest.mark.long
@pytest.mark.parametrize("name", list(LINES))
def test_a_line_of_options_trains_as_one_process(data, alone, tmp_path, name):
    options = shlex.split(LINES[name])
    count = 4 if "--tensor-parallel-size" in options else 8
    found = train(8, data, tmp_path / "run", *MODEL, *options)
    expected = alone(count)
    for key, tensor in expected["model"].items():
        assert_close(found["model"][key], tensor, atol=1e-5, rtol=0)
