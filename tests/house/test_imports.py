"""Nobody waits for a library that is not used: seconds at import time are the first thing a person sees of us."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ["pandas", "numpy", "sklearn", "scipy", "mlflow", "azure", "jupyter_client", "papermill", "IPython", "nbformat",
         "pyarrow", "deltalake", "optuna", "fairlearn", "plotnine", "matplotlib", "nbdev", "fastcore", "torch"]
PHASES = ["data_estate", "setup", "inner_loop", "outer_loop", "genai"]
HELP = "import sys; sys.argv = ['mlops-nb', '--help']; from mlops_nb.cli import main; main()"


def loaded(code: str) -> set[str]:
    """Run code in a new interpreter; returns the top-level packages it has loaded at its end."""
    report = "import atexit, sys, json; atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
    done = subprocess.run([sys.executable, "-c", report + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


@pytest.mark.parametrize("code", ["import mlops_nb", HELP], ids=["import mlops_nb", "mlops-nb --help"])
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert loaded(code) & set(HEAVY) == set()


def modules(folder: str = "") -> list[Path]:
    return sorted((ROOT / "mlops_nb" / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """List what a module imports, anywhere in it, relative imports resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            start = ".".join(filter(None, [base, node.module]))
            found |= {start, *(f"{start}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("phase", ["core", *PHASES])
def test_imports_point_one_way(phase: str) -> None:
    """Phases import core and libraries, never each other; core imports no phase."""
    others = [f"mlops_nb.{other}" for other in PHASES if other != phase]
    wrong = {path.relative_to(ROOT).as_posix(): name for path in modules(phase) for name in imports(path)
             if any(name == other or name.startswith(f"{other}.") for other in others)}
    assert not wrong


def test_the_library_runs_without_the_developers_tools() -> None:
    tools = {"nbdev", "fastcore", "pytest", "sphinx", "playwright"}
    wrong = {path.relative_to(ROOT).as_posix(): tools & {name.split(".")[0] for name in imports(path)} for path in modules()}
    assert not {path: found for path, found in wrong.items() if found}


def test_only_one_room_imports_the_azure_ml_sdk() -> None:
    users = {path.relative_to(ROOT).as_posix() for path in modules() if any(n.startswith("azure.ai") for n in imports(path))}
    assert {path.rsplit("/", 1)[0] for path in users} == {"mlops_nb/azure"}


def test_no_star_imports() -> None:
    assert not [path for path in modules() if "import *" in path.read_text()]
