"""The habits that keep the code readable, where a machine can see them."""

import ast
import inspect
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "nbs").glob("[!_.]*/[!_.]*.ipynb"))
MODULES = sorted(path for path in (ROOT / "mlops_nb").rglob("*.py") if path.name != "_modidx.py")
LONGEST_CELL = 30  # lines that are not blank; a longer one wants to be two, each with its own sentence


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", LESSONS, ids=name)
def test_exported_cells_are_small(path: Path) -> None:
    sources = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    exported = [[line for line in source.splitlines()[1:] if line.strip()] for source in sources if source.startswith("#| export")]
    assert not {lines[0]: len(lines) for lines in exported if len(lines) > LONGEST_CELL}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_public_functions_are_typed_and_say_what_they_do(path: Path) -> None:
    poor = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if not ast.get_docstring(node) or node.returns is None or any(argument.annotation is None for argument in arguments):
                poor.append(node.name)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
            poor.append(node.name)
    assert not poor


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    """At the top of a module stand the standard library, our own modules, and a few that load in a blink."""
    # processes of their own, and what only a notebook imports
    if {"serving", "scoring", "kernels", "widgets", "load"} & set(path.parts):
        return
    light = {"mlops_nb", "pydantic", "typer", "rich", "yaml", "filelock", "psutil", "numpy"}
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {n.split(".")[0] for node in top if not getattr(node, "level", 0)
             for n in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])}
    assert not names - light - set(sys.stdlib_module_names)


def test_this_machine_is_nowhere_in_the_sources() -> None:
    """No path that exists only here: a stranger's clone would not find it."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    places = [re.escape(f"{place}/") for place in (ROOT, ROOT.parent, Path.home())
              if len(place.parts) > 1 and place != Path(tempfile.gettempdir())]
    here = re.compile("|".join(places) or "$^")
    files = [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]
    assert not [name(path) for path in files if here.search(path.read_text(errors="ignore"))]


def test_the_map_names_every_room() -> None:
    """CONTRIBUTING.md is the map; a room that is not on it cannot be found."""
    map_ = (ROOT / "CONTRIBUTING.md").read_text()
    rooms = [path for folder in ("nbs", "mlops_nb", "ci", "tests") for path in (ROOT / folder).iterdir()
             if path.is_dir() and path.name[0] not in "._" and any(path.iterdir())]
    scripts = [path for path in (ROOT / "ci").iterdir() if path.is_file() and not path.suffix]
    missing = [name(path) for path in [*rooms, *scripts] if path.name not in map_]
    assert not missing
    named = re.findall(r"`((?:nbs|mlops_nb|ci|environments|docs|tests)/[\w./]*)`", map_)
    assert not [path for path in named if not (ROOT / path).exists() and path != "docs/_build/html/index.html"]


def test_the_scripts_can_be_run() -> None:
    scripts = [ROOT / ".ci/run", *(path for path in (ROOT / "ci").iterdir() if path.is_file() and not path.suffix)]
    for script in scripts:
        assert script.stat().st_mode & 0o111, f"no run bit: {name(script)}"
        subprocess.run(["bash", "-n", script], check=True)


def test_the_version_in_the_changelog_is_the_packages() -> None:
    import mlops_nb

    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased" or mlops_nb.__version__ in headings[0]
    assert inspect.getdoc(mlops_nb)
