"""What is installed elsewhere is complete: the built wheel, outside this tree, with nothing of this tree on the path."""

import os
import subprocess
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run([python, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_wheel_holds_every_module_and_the_project_that_init_lays(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mlops_nb").rglob("*.py")}
    assert modules <= names
    tracked = subprocess.run(["git", "ls-files", "mlops_nb"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert set(tracked) <= names  # the JavaScript and the style sheets, too
    laid = {"settings.ini": [Path("settings.ini")]} | {
        folder: [p.relative_to(ROOT) for p in (ROOT / folder).rglob("*") if p.is_file() and not p.name.startswith(".")]
        for folder in ("ci/components", "ci/pipelines", "environments/access", "environments/dev", "environments/images",
                       "environments/staging", "environments/prod", "nbs/scenarios")
    }
    missing = [path.as_posix() for paths in laid.values() for path in paths if f"mlops_nb/_project/{path.as_posix()}" not in names]
    assert not missing


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"mlops_nb"}
    assert not [name for name in names if "__pycache__" in name or ".ipynb_checkpoints" in name]


def test_the_installed_command_runs_outside_the_tree(elsewhere: Path, tmp_path: Path) -> None:
    where = run(elsewhere, "-c", "import mlops_nb; print(mlops_nb.__file__)", cwd=tmp_path)
    assert str(ROOT) not in where.stdout
    assert Path(where.stdout.strip()).is_relative_to(elsewhere.parents[1]), where.stderr
    shown = subprocess.run([elsewhere.with_name("mlops-nb"), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "demo" in shown.stdout


def test_init_lays_a_project_whose_settings_load(elsewhere: Path, tmp_path: Path) -> None:
    laid = subprocess.run([elsewhere.with_name("mlops-nb"), "init"], cwd=tmp_path, capture_output=True, text=True)
    assert laid.returncode == 0, laid.stderr
    parts = ["settings.ini", "ci/pipelines/classical.yml", "nbs/scenarios/classical/10_data.ipynb", "environments/access/actions.csv"]
    assert not [part for part in parts if not (tmp_path / part).is_file()]
    loads = "from mlops_nb.core.settings import load_settings; print(load_settings('prod').persona)"
    assert run(elsewhere, "-c", loads, cwd=tmp_path).stdout == "cicd_process\n"
