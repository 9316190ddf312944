"""The library is what the notebooks export. nbdev itself is silent about all five faults below."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def in_sync(root: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, ROOT / "ci/in_sync.py", root, *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the check looks at, with two core notebooks only (it is the check that is tested)."""
    root = tmp_path_factory.mktemp("pristine")
    shutil.copy(ROOT / "pyproject.toml", root)
    shutil.copytree(ROOT / "nbs/core", root / "nbs/core", ignore=lambda _, names: [n for n in names if not re.match("0[01]", n)])
    (root / "mlops_nb").mkdir()
    shutil.copy(ROOT / "mlops_nb/__init__.py", root / "mlops_nb")
    rc, output = in_sync(root, "--write")
    assert rc == 0, output
    return root


@pytest.fixture
def copy(pristine: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pristine, tmp_path / "copy")


def test_this_project_is_in_step() -> None:
    assert in_sync(ROOT) == (0, "notebooks and library are in step\n")


def test_a_sound_copy_passes_and_has_its_modules(copy: Path) -> None:
    assert in_sync(copy)[0] == 0
    assert sorted(path.name for path in (copy / "mlops_nb/core").iterdir()) == ["__init__.py", "files.py", "records.py"]


def rename_notebook(root: Path) -> None:
    path = root / "nbs/core/01_records.ipynb"
    path.write_text(path.read_text().replace("default_exp core.records", "default_exp core.minutes"))


def forget_export(root: Path) -> None:
    (root / "mlops_nb/core/records.py").unlink()


def edit_module(root: Path) -> None:
    with (root / "mlops_nb/core/files.py").open("a") as file:
        file.write("\nanswer = 42\n")


def edit_notebook(root: Path) -> None:
    path = root / "nbs/core/00_files.ipynb"
    path.write_text(path.read_text().replace("import tempfile", "import tempfile as temporary", 1))


def export_twice(root: Path) -> None:
    shutil.copy(root / "nbs/core/00_files.ipynb", root / "nbs/core/99_also_files.ipynb")


def keep_outputs(root: Path) -> None:
    path = root / "nbs/core/00_files.ipynb"
    notebook = json.loads(path.read_text())
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    code["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["a password\n"]}]
    path.write_text(json.dumps(notebook))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (rename_notebook, "mlops_nb/core/records.py: stale, no notebook exports it"),
        (rename_notebook, "mlops_nb/core/minutes.py: not exported yet"),
        (forget_export, "mlops_nb/core/records.py: not exported yet"),
        (edit_module, "mlops_nb/core/files.py: not what its notebook exports"),
        (edit_notebook, "mlops_nb/core/files.py: not what its notebook exports"),
        (export_twice, "core.files is exported by nbs/core/00_files.ipynb and by nbs/core/99_also_files.ipynb"),
        (keep_outputs, "nbs/core/00_files.ipynb: not clean"),
    ],
)
def test_every_fault_is_found(copy: Path, damage: Callable[[Path], None], complaint: str) -> None:
    damage(copy)
    rc, output = in_sync(copy)
    assert rc == 1
    assert complaint in output


@pytest.mark.parametrize("damage", [rename_notebook, forget_export, edit_module, edit_notebook, keep_outputs])
def test_export_mends_it(copy: Path, damage: Callable[[Path], None]) -> None:
    damage(copy)
    assert in_sync(copy, "--write")[0] == 0
    assert in_sync(copy) == (0, "notebooks and library are in step\n")


def test_export_refuses_to_choose_between_two_notebooks(copy: Path) -> None:
    export_twice(copy)
    before = (copy / "mlops_nb/core/files.py").read_bytes()
    assert in_sync(copy, "--write")[0] == 1
    assert (copy / "mlops_nb/core/files.py").read_bytes() == before


def test_modules_written_by_hand_are_left_alone(copy: Path) -> None:
    (copy / "mlops_nb/cli.py").write_text('"""By hand."""\n')
    assert in_sync(copy)[0] == 0
    assert in_sync(copy, "--write")[0] == 0
    assert (copy / "mlops_nb/cli.py").read_text() == '"""By hand."""\n'
