"""The papermill engine: typed parameters, and a fresh kernel for every notebook, forked where the heavy libraries are loaded."""

import json
import subprocess
import sys
import time
from pathlib import Path

import papermill
import psutil
import pytest
from papermill.exceptions import PapermillExecutionError

from mlops_nb.kernels.manager import ForkServer

linux = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")


def printed(page) -> list[str]:
    outputs = [output for cell in page.cells for output in cell.get("outputs", [])]
    return [output.text.strip() for output in outputs if output.output_type == "stream"]


def command(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run papermill's command with our engine, the output beside the notebook."""
    program = [Path(sys.executable).with_name("papermill"), "--engine", "mlops-nb", "--no-progress-bar", path.name, "out.ipynb"]
    return subprocess.run([*program, *options], cwd=path.parent, capture_output=True, text=True)


def test_papermill_finds_the_engine_and_its_command_line_is_typed_by_the_notebook(notebook):
    path = notebook("version: str = '1.0'\nflag: bool = False\nx = 1", "print(repr(version), flag, x + 1)")
    done = command(path, "-p", "version", "1.10", "-p", "flag", "true", "-p", "x", "41")
    assert done.returncode == 0, done.stderr
    page = json.loads((path.parent / "out.ipynb").read_text())
    assert page["cells"][-1]["outputs"][0]["text"] == ["'1.10' True 42\n"]
    assert page["metadata"]["papermill"]["parameters"] == {"version": "1.10", "flag": True, "x": 41}
    assert page["cells"][1]["metadata"]["tags"] == ["injected-parameters"]
    assert sorted(p.name for p in path.parent.iterdir()) == ["out.ipynb", "page.ipynb"]


def test_wrong_parameters_are_all_told_before_anything_is_written(notebook):
    path = notebook("rate: float = 0.1\nsize: int", "print(rate)")
    done = command(path, "-p", "rate", "abc", "-p", "other", "1")
    assert done.returncode == 2
    assert all(word in done.stderr for word in ("rate", "abc", "other", "size")), done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in path.parent.iterdir()] == ["page.ipynb"]


def test_parameters_given_from_python_keep_their_types(notebook, run):
    cell = "from datetime import date\nfrom pathlib import Path\nday: date = date(2026, 1, 1)\nplace: Path = Path()\nbest: float = 1"
    page = run(notebook(cell, "print(repr(day), place / 'b', best)"), {"day": "2026-11-21", "place": "c", "best": float("inf")})
    assert printed(page) == ["datetime.date(2026, 11, 21) c/b inf"]
    assert page.metadata.papermill.parameters == {"day": "2026-11-21", "place": "c", "best": "inf"}


def test_an_executed_notebook_can_be_executed_again_with_other_values(notebook, run):
    path = notebook("x: int = 1\ny: int = x + 1", "print(x, y)")
    run(path, {"x": 5})
    again = path.with_name("out-page.ipynb").rename(path.with_name("again.ipynb"))
    assert printed(run(again, {"x": 7})) == ["7 8"]
    assert printed(run(again)) == ["5 6"], "without values it is what it was"


def test_each_notebook_has_a_kernel_of_its_own(notebook, run):
    first = notebook("x = 1", "import numpy, os\nnumpy.touched = 1\nprint(os.getpid())", name="first.ipynb")
    second = notebook("x = 1", "import numpy, os\nprint(os.getpid())\nprint(hasattr(numpy, 'touched'))", name="second.ipynb")
    pid, *_ = printed(run(first))
    other, touched = "\n".join(printed(run(second))).split("\n")
    assert pid != other
    assert touched == "False"


@linux
def test_the_heavy_libraries_are_there_before_they_are_imported_and_ours_are_not(notebook, run):
    look = "import sys\nprint([n in sys.modules for n in ('mlflow', 'sklearn', 'pandas', 'mlops_nb')])"
    page = run(notebook("x = 1", look, "import mlflow, sklearn\nfrom pandas import DataFrame"))
    assert printed(page) == ["[True, True, True, False]"]


@linux
def test_what_a_notebook_imports_late_is_there_in_the_next(notebook, run):
    look = "import sys\nprint('casbin' in sys.modules)"
    late = notebook("x = 1", look, "def use():\n    import casbin\nuse()")
    ForkServer.get().close()  # other tests may have taught it already
    assert printed(run(late)) == ["False"]
    assert printed(run(late)) == ["True"]


def test_forked_kernels_do_not_repeat_each_others_random_numbers(notebook, run):
    path = notebook("x = 1", "import random, numpy\nprint(random.random(), numpy.random.rand())")
    assert printed(run(path)) != printed(run(path))


def test_the_working_folder_and_its_modules_are_the_notebooks(notebook, run, tmp_path):
    (tmp_path / "helper.py").write_text("WORD = 'found'")
    path = notebook("x = 1", "import os, helper\nprint(helper.WORD, os.getcwd())")
    assert printed(run(path)) == [f"found {tmp_path}"]


def test_exit_hooks_are_run(notebook, run, tmp_path):
    run(notebook("x = 1", "import atexit\natexit.register(lambda: open('left', 'w').write('by the hook'))"))
    assert (tmp_path / "left").read_text() == "by the hook"


def test_papermills_own_marks_are_there_for_its_readers(notebook, run, tmp_path):
    with pytest.raises(PapermillExecutionError, match="ZeroDivisionError"):
        run(notebook("x = 1", "1 / 0", "2"))
    page = json.loads((tmp_path / "out-page.ipynb").read_text())
    status = [cell["metadata"]["papermill"]["status"] for cell in page["cells"] if cell["cell_type"] == "code"]
    assert status == ["completed", "failed", "pending"]
    assert page["cells"][0]["metadata"]["tags"] == ["papermill-error-cell-tag"]
    assert page["metadata"]["papermill"]["exception"] is True


@linux
def test_no_kernel_outlives_the_process_that_asked_for_it(tmp_path, notebook):
    path = notebook("x = 1", "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(300)")
    program = [Path(sys.executable).with_name("papermill"), "--engine", "mlops-nb", path.name, "out.ipynb"]
    asker = subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    asker.kill()
    asker.wait()
    kernel, end = int((tmp_path / "pid").read_text()), time.monotonic() + 60
    while psutil.pid_exists(kernel):
        assert time.monotonic() < end, "the kernel is an orphan"
        time.sleep(0.05)
    assert [p.name for p in tmp_path.iterdir() if "ipc" in p.name] == []


def test_papermill_default_engine_stays_what_it_was(notebook, tmp_path):
    """Our engine shares papermill's process: its adaptations must not reach notebooks that others run."""
    expected = notebook("x = 1", ("1 / 0", "raises-exception"))
    with pytest.raises(PapermillExecutionError):
        papermill.execute_notebook(expected, tmp_path / "plain.ipynb", progress_bar=False)
