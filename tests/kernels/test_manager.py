"""Which kernel a notebook gets: a forked one where that is the same thing, else a plain one, else a clear word."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mlops_nb
from mlops_nb.core.records import SpecificationError
from mlops_nb.kernels import manager

linux = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
FORKED = "import os\nprint('forked' if 'server.py' in open(f'/proc/{os.getppid()}/cmdline').read() else 'plain')"


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """Install a kernel spec: `kernels("name", argv=[...])`."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))

    def install(name: str, **spec) -> None:
        folder = tmp_path / "jupyter" / "kernels" / name
        folder.mkdir(parents=True)
        python = {"argv": ["python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
        (folder / "kernel.json").write_text(json.dumps({"display_name": name, "language": "python", **python, **spec}))

    return install


def text(page) -> str:
    return "".join(output.text for cell in page.cells for output in cell.get("outputs", [])).strip()


def test_a_kernel_that_is_not_installed_is_told_with_those_that_are(notebook, run, tmp_path):
    path = notebook("x = 1", "1", kernel="julia-9")
    with pytest.raises(SpecificationError, match=r"No kernel 'julia-9'.*python3"):
        run(path)
    assert [p.name for p in tmp_path.iterdir()] == ["page.ipynb"]


def test_a_kernel_whose_program_was_removed_is_told(notebook, run, kernels):
    kernels("old", argv=["/opt/gone/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    with pytest.raises(SpecificationError, match="/opt/gone/bin/python"):
        run(notebook("x = 1", "1", kernel="old"))


@linux
def test_the_environments_own_kernel_is_forked(notebook, run):
    assert text(run(notebook("x = 1", FORKED))) == "forked"


@linux
def test_a_kernel_of_another_interpreter_is_started_as_its_spec_says(notebook, run, kernels, tmp_path):
    other = tmp_path / "other-python"
    other.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    kernels("other", argv=[str(other), "-m", "ipykernel_launcher", "-f", "{connection_file}"], env={"MARK": "spec"})
    page = run(notebook("x: int = 1", f"{FORKED}\nprint(os.environ['MARK'], x)", kernel="other"), {"x": "2"})
    assert text(page) == "plain\nspec 2"


@linux
def test_what_libraries_read_while_they_are_loaded_gets_a_plain_kernel(notebook, run, tmp_path):
    path = notebook("x = 1", FORKED)
    assert text(run(path, variables={"OMP_NUM_THREADS": "1"}, log=tmp_path / "log")) == "plain"
    assert "OMP_NUM_THREADS must be set before libraries are loaded" in (tmp_path / "log").read_text()
    assert text(run(notebook("x = 1", f"{FORKED}\nos.environ['OMP_NUM_THREADS'] = '2'"))) == "plain"


@linux
def test_where_the_server_does_not_start_kernels_are_plain(notebook, run, tmp_path, monkeypatch):
    monkeypatch.setattr(manager.ForkServer, "_running", None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    server = manager.ForkServer.get()
    monkeypatch.undo()
    monkeypatch.setattr(manager.ForkServer, "get", lambda preload=None: server)
    assert text(run(notebook("x = 1", FORKED), log=tmp_path / "log")) == "plain"
    assert (tmp_path / "log").read_text().count("the kernel was started anew instead of forked") == 1


def test_variables_reach_the_kernel_and_nobody_else(notebook, run):
    page = run(notebook("x = 1", "import os\nprint(os.environ['ONLY_THERE'])"), variables={"ONLY_THERE": "yes"})
    assert text(page) == "yes"
    assert "ONLY_THERE" not in os.environ


@linux
def test_a_project_that_stands_on_the_path_is_found_from_every_folder_also_when_the_run_starts_in_it(notebook, tmp_path):
    path, root = notebook("x = 1", "import mlops_nb.core"), Path(mlops_nb.__file__).parents[1]
    code = f"""
from papermill.iorw import load_notebook_node
from mlops_nb.kernels.run import execute
page = execute(load_notebook_node({str(path)!r}), "python3", None, cwd={str(tmp_path)!r})
assert not any(cell.outputs for cell in page.cells), page.cells[-1].outputs"""
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
