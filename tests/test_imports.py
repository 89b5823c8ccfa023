"""Imports point down, siblings do not know each other, only the edge knows fairseq (DESIGN.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = (
    {"", "errors", "files"},  # "" is the package itself, which holds the version
    {"config"},
    {"ops", "parallel"},
    {"modules", "data", "checkpoint", "optim without fairseq"},
    {"surgery", "interop", "inference", "planner", "report"},
    {"tasks", "models", "criterions", "optim", "fairseq_view", "cli"},
)
EDGE = {"tasks", "models", "criterions", "optim", "fairseq_view"}
SIBLINGS = {  # who may know whom in the same row
    ("files", "errors"),
    ("checkpoint", "modules"),
    ("checkpoint", "data"),
    *((part, "fairseq_view") for part in EDGE),
    ("tasks", "criterions"),  # fairseq's `--user-dir` imports tasks/ and models/ only, so that
    ("tasks", "optim"),  # the task has to import what else must be registered
}
MODULES = sorted((ROOT / "mtmoe").rglob("*.py"))


def part_of(module: str) -> str:
    """`mtmoe.ops.routing` belongs to `ops`."""
    if module in ("mtmoe.optim.tiles", "mtmoe.optim.tiled_adam"):
        return "optim without fairseq"
    return [*module.split("."), ""][1]


def row_of(part: str) -> int:
    found = [n for n, row in enumerate(ROWS) if part in row]
    assert found, f"mtmoe.{part} has no place in DESIGN.md; give it one there and in ROWS"
    return found[0]


def is_allowed(importer: str, imported: str) -> bool:
    """Whether one part of mtmoe may import another."""
    if importer == imported or (importer, imported) in SIBLINGS:
        return True
    is_side_by_side = importer == "cli" and imported in EDGE
    return row_of(imported) < row_of(importer) and not is_side_by_side


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: imports must be absolute"
            assert node.module
            yield from _targets(node.module, [alias.name for alias in node.names])


def _targets(module: str, names: list[str]) -> Iterator[str]:
    if module != "mtmoe":
        yield module
        return
    for (
        name
    ) in names:  # `from mtmoe import ops` imports a part, `from mtmoe import __version__` none
        is_part = (ROOT / "mtmoe" / name).is_dir() or (ROOT / "mtmoe" / f"{name}.py").is_file()
        yield f"mtmoe.{name}" if is_part else "mtmoe"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_imports_only_what_is_below_it(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    part = part_of(module)
    for name in imports(path):
        if name.split(".")[0] == "mtmoe":
            assert is_allowed(part, part_of(name)), f"{module} must not import {name}"
        if name.split(".")[0] in ("fairseq", "fairseq_cli"):
            assert part in EDGE, f"{module} must not import {name}: only the edge knows fairseq"
        assert name.split(".")[0] not in ("data_prep", "evaluation", "tests"), (module, name)


def test_rules_are_those_of_the_design() -> None:
    assert is_allowed("modules", "ops")
    assert is_allowed("cli", "inference")
    assert is_allowed("checkpoint", "modules")
    assert not is_allowed("modules", "checkpoint")
    assert not is_allowed("surgery", "inference")
    assert not is_allowed("ops", "parallel")
    assert not is_allowed("config", "modules")
    assert not is_allowed("cli", "tasks")
    assert not is_allowed("tasks", "models")


def test_the_package_itself_imports_nothing_of_ours() -> None:
    assert not [name for name in imports(ROOT / "mtmoe/__init__.py") if name != "__future__"]
