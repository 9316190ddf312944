"""Notebooks are source code: one shape, no outputs, and cleaning them loses nothing."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NBS = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if not any(p[0] in "_." for p in path.relative_to(ROOT).parts))
SCENARIOS = [path for path in NBS if "scenarios" in path.parts]
LESSONS = [path for path in NBS if path.parent.parent == ROOT / "nbs" and path not in SCENARIOS]


def name(path: Path) -> str:
    return path.relative_to(ROOT / "nbs").as_posix()


def cells(path: Path, kind: str = "code") -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


@pytest.mark.parametrize("path", SCENARIOS, ids=name)
def test_a_scenario_notebook_has_one_typed_parameters_cell(path: Path) -> None:
    from mlops_nb.core.parameters import read_parameters

    tagged = [cell for cell in cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    for line in ast.parse(source(tagged[0])).body:
        assert isinstance(line, ast.AnnAssign | ast.Import | ast.ImportFrom), f"not annotated: {ast.unparse(line)}"
    undocumented = [parameter.name for parameter in read_parameters(path) if not parameter.doc]
    assert not undocumented


@pytest.mark.parametrize("path", SCENARIOS, ids=name)
def test_a_scenario_notebook_exports_nothing_and_defines_nothing_long(path: Path) -> None:
    for cell in cells(path):
        assert not source(cell).startswith("#|")
        code = source(cell) if not source(cell).startswith("%") else ""
        functions = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)]
        long = [node.name for node in functions if node.end_lineno - node.lineno + 1 > 5]  # type: ignore[operator]
        assert not long, f"{long}: over five lines, they belong in the library"


@pytest.mark.parametrize("path", NBS, ids=name)
def test_a_notebook_opens_with_its_name_and_its_point(path: Path) -> None:
    first = source(cells(path, "markdown")[0])
    assert first.startswith("# ")
    assert "\n> " in first


@pytest.mark.parametrize("path", NBS, ids=name)
def test_its_links_lead_somewhere(path: Path) -> None:
    links = [link for cell in cells(path, "markdown") for link in re.findall(r"\]\(([^)#:\s]+)\)", source(cell))]
    assert not [link for link in links if not (path.parent / link).is_file()]


@pytest.mark.parametrize("path", LESSONS, ids=name)
def test_a_library_notebook_is_named_after_its_module(path: Path) -> None:
    module = path.stem.split("_", 1)[1]
    assert source(cells(path)[0]) == f"#| default_exp {path.parent.name}.{module}"
    assert source(cells(path, "markdown")[0]).startswith(f"# {module}\n")


def test_cleaning_keeps_every_notebook_and_the_parameters_tag(tmp_path: Path) -> None:
    """`nbdev-clean` deletes papermill's tag unless pyproject.toml allows tags; what ci/export calls must not."""
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs", ignore=shutil.ignore_patterns(".*"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    tagged = {"cell_type": "code", "execution_count": 3, "id": "1a2b3c4d", "outputs": [], "source": ["rows: int = 5  # how many"],
              "metadata": {"tags": ["parameters"], "collapsed": True}}
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    probe = {"cells": [tagged], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "nbs/probe.ipynb").write_text(json.dumps(probe))

    subprocess.run([Path(sys.executable).with_name("nbdev-clean")], cwd=tmp_path, check=True)

    cell = cells(tmp_path / "nbs/probe.ipynb")[0]
    assert cell["metadata"] == {"tags": ["parameters"]}
    assert cell["execution_count"] is None
    assert [name(path) for path in NBS if path.read_bytes() != (tmp_path / path.relative_to(ROOT)).read_bytes()] == []


@pytest.mark.parametrize("path", NBS, ids=name)
def test_no_outputs_are_kept(path: Path) -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(path))
