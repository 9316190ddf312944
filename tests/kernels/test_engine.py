"""The papermill engine: a fresh kernel for every notebook, forked from one that has imported the heavy libraries."""

import json
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest

linux = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")


@pytest.fixture
def notebook(tmp_path: Path):
    """Write a notebook of the given cells; the first one is tagged parameters."""

    def write(*cells: str, name: str = "page.ipynb") -> Path:
        python = {"name": "python3", "display_name": "python3", "language": "python"}
        page = nbformat.v4.new_notebook(metadata={"kernelspec": python})
        page.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
        page.cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(page, tmp_path / name)
        return tmp_path / name

    return write


def run(path: Path, **parameters: object) -> list[str]:
    """Execute with our engine; returns what the cells printed."""
    page = papermill.execute_notebook(
        path, path.with_name(f"out-{path.name}"), parameters, engine_name="mlops-nb", progress_bar=False, cwd=path.parent
    )
    return [output.text.strip() for cell in page.cells for output in cell.get("outputs", []) if output.output_type == "stream"]


def test_papermill_finds_the_engine_by_its_name(notebook):
    path = notebook("x = 1", "print(x + 1)")
    command = [Path(sys.executable).with_name("papermill"), "--engine", "mlops-nb", "--no-progress-bar", path.name, "out.ipynb"]
    done = subprocess.run([*command, "-p", "x", "41"], cwd=path.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "42" in (path.parent / "out.ipynb").read_text()


def test_each_notebook_has_a_kernel_of_its_own(notebook):
    first = notebook("x = 1", "import numpy, os\nnumpy.touched = 1\nprint(os.getpid())", name="first.ipynb")
    second = notebook("x = 1", "import numpy, os\nprint(os.getpid())\nprint(hasattr(numpy, 'touched'))", name="second.ipynb")
    pid, *_ = run(first)
    other, touched = "\n".join(run(second)).split("\n")
    assert pid != other
    assert touched == "False"


@linux
def test_the_heavy_libraries_are_there_already_and_ours_are_not(notebook):
    path = notebook("x = 1", "import sys\nprint([n in sys.modules for n in ('mlflow', 'sklearn', 'pandas', 'mlops_nb')])")
    assert run(path) == ["[True, True, True, False]"]


def test_forked_kernels_do_not_repeat_each_others_random_numbers(notebook):
    path = notebook("x = 1", "import random, numpy\nprint(random.random(), numpy.random.rand())")
    assert run(path) != run(path)


def test_the_working_folder_and_its_modules_are_the_notebooks(notebook, tmp_path):
    (tmp_path / "helper.py").write_text("WORD = 'found'")
    path = notebook("x = 1", "import os, helper\nprint(helper.WORD, os.getcwd())")
    assert run(path) == [f"found {tmp_path}"]


def test_a_kernel_that_dies_fails_the_notebook_and_leaves_what_was_done(notebook, tmp_path):
    path = notebook("x = 1", "print('before')", "import os\nos.kill(os.getpid(), 9)")
    start = time.monotonic()
    with pytest.raises(Exception, match=r"[Dd]ied"):
        run(path)
    assert time.monotonic() - start < 30
    assert "before" in json.dumps(json.loads((tmp_path / "out-page.ipynb").read_text()))


@linux
def test_no_kernel_outlives_the_process_that_asked_for_it(tmp_path, notebook):
    path = notebook("x = 1", "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)")
    command = [Path(sys.executable).with_name("papermill"), "--engine", "mlops-nb", path.name, "out.ipynb"]
    asker = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    asker.kill()
    asker.wait()
    kernel, end = int((tmp_path / "pid").read_text()), time.monotonic() + 10
    while psutil.pid_exists(kernel):
        assert time.monotonic() < end, "the kernel is an orphan"
        time.sleep(0.05)
    assert [p.name for p in tmp_path.iterdir() if "ipc" in p.name] == []
