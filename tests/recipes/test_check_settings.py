"""What a recipe is given is checked before its first step."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtmoe.errors import run_command

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes/check_settings.py"
DATA = ROOT / "tests/samples/gettext/data.yaml"


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """The check in this process, which takes less time: exit code, settings, complaint."""
    spec = importlib.util.spec_from_file_location("check_settings", SCRIPT)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)

    def call(*words, minutes="1", keep="4", data=DATA):
        options = ["--recipe", str(ROOT / "recipes/quickstart"), "--data", str(data)]
        options += ["--out", str(tmp_path / "out"), f"--minutes={minutes}", f"--keep={keep}"]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options, "--", *words])
        code = run_command(program.main)
        return code, *capsys.readouterr()

    yield call
    logging.disable(logging.NOTSET)


def test_good_settings_are_printed_and_nothing_is_made(check, tmp_path):
    words = ["model.num_experts=16", "++model.capacity_factor=1.25", "optimization.max_update=5"]
    code, out, error = check(*words, minutes=".5", keep="16")
    assert (code, error) == (0, "")
    settings = json.loads(out)
    assert settings["model.num_experts"] == 16
    assert settings["model.capacity_factor"] == 1.25
    assert settings["optimization.lr"] == [0.002]
    assert "optimization.max_update" not in settings
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "given", "message"),
    [
        ([], {"minutes": "abc"}, "MINUTES must be a number above 0, but is 'abc'."),
        ([], {"minutes": "0"}, "MINUTES must be a number above 0, but is '0'."),
        ([], {"minutes": "-1"}, "MINUTES must be a number above 0, but is '-1'."),
        ([], {"minutes": ""}, "MINUTES must be a number above 0, but is ''."),
        ([], {"keep": "99"}, "KEEP must be a number between 1 (model.top_k) and 8"),
        (["model.num_experts=4"], {"keep": "5"}, "and 4 (model.num_experts), but is '5'."),
        ([], {"keep": "two"}, "KEEP must be a number between 1 (model.top_k) and 8"),
        ([], {"data": "/none.yaml"}, "DATA must be a file, but is not there: /none.yaml."),
        (["KEEP=2"], {}, "KEEP must stand before the command, but is an argument. Write KEEP=2"),
        (["--fast"], {}, "arguments must be options of the recipe (see --help) or overrides"),
        (["fast"], {}, "but one is 'fast'. Leave it out."),
        (["keep=2"], {}, "overrides must name a setting, but keep is none."),
        (["model.num_expert=4"], {}, "model.num_expert is none. Did you mean model.num_experts?"),
        (["++optimization.foo=4"], {}, "overrides must name a setting, but optimization.foo"),
        (["model.capacity_factor=2"], {}, "must have ++ in front, since it does not stand in"),
        (["model.num_experts=x"], {}, "Value 'x' of type 'str' could not be converted to Integer"),
        (["model.top_k=9"], {}, "top_k must be between 1 and num_experts (8), but is 9."),
        (["model._name=moe_tranformer"], {}, "model._name must be among moe_transformer,"),
        (["model.moe_every=0"], {}, "model.moe_every must be 1 or more to prune experts"),
    ],
)
def test_a_mistake_is_one_sentence(check, words, given, message):
    code, out, error = check(*words, **given)
    assert (code, out) == (2, "")
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_settings_of_other_checkpoints_are_refused(check, tmp_path):
    folder = tmp_path / "out"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "settings.json").write_text(check()[1])
    assert check("model.num_experts=16")[0] == 0, "there is no checkpoint yet"
    (folder / "checkpoints" / "checkpoint_last.pt").touch()
    assert check("optimization.max_update=9", minutes="2", keep="2")[0] == 0
    code, _, error = check("model.num_experts=16")
    assert code == 2
    assert f"model.num_experts must be 8, as the checkpoints in OUT={folder} have it" in error
    assert error.endswith("but is 16. Give another OUT.\n")


@pytest.mark.parametrize(
    ("environment", "words", "code", "message"),
    [
        ({}, ["--help"], 0, ""),
        ({"MINUTES": "x"}, [], 2, "MINUTES must be a number above 0"),
        ({"DATA": "none.yaml"}, [], 2, "DATA must be a file, but is not there: {folder}/none.yaml"),
        ({"DATA": "file"}, [], 2, "--config must hold keys and values, but {folder}/file does not"),
        ({"OUT": "file"}, [], 2, "OUT must be a folder, but {folder}/file is a file."),
    ],
)
def test_the_recipe_is_checked_in_the_folder_of_its_caller(
    tmp_path, environment, words, code, message
):
    (tmp_path / "file").touch()
    found = subprocess.run(
        ["bash", str(ROOT / "recipes/quickstart/run.sh"), *words], cwd=tmp_path,
        env=os.environ | {"OUT": "out"} | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == code
    assert message.format(folder=tmp_path) in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert ("Usage: bash recipes/quickstart/run.sh [--dense]" in found.stdout) == (code == 0)
