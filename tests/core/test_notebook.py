"""One notebook as a job: what comes back, what is told of a failure, and that runs in threads do not meet."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

from mlops_nb.core.notebook import run_notebook
from mlops_nb.core.records import GateClosed, PeopleNeeded, SpecificationError, StepFailed


@pytest.fixture
def notebook(project):
    """Write a notebook of the given cells into the project; the first one is tagged parameters."""

    def write(*cells: str, name: str = "page.ipynb", kernel: str = "python3") -> Path:
        page = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": kernel, "display_name": kernel}})
        page.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
        page.cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(page, project.root / name)
        return project.root / name

    return write


def printed(path: Path) -> str:
    cells = json.loads(path.read_text())["cells"]
    return "".join(line for cell in cells for out in cell.get("outputs", []) for line in out.get("text", []))


def test_a_run_returns_the_executed_copy_and_its_page(project, notebook):
    path = notebook("version: str = '1.0'", "print(version)\nfrom IPython.display import SVG, display\n1")
    source = path.read_bytes()
    done = run_notebook(project, path, project.root / "deep" / "out.ipynb", {"version": "1.10"})
    assert printed(done.path) == "1.10\n"
    assert path.read_bytes() == source
    page = done.report.read_text()
    assert "1.10" in page
    assert "https://" not in "".join(line for line in page.splitlines() if "<script" in line or "<link" in line)
    assert done.seconds > 0


def test_every_wrong_parameter_is_told_and_nothing_is_written(project, notebook):
    path = notebook("rate: float = 0.1\nsize: int", "1")
    with pytest.raises(SpecificationError) as told:
        run_notebook(project, path, project.root / "out.ipynb", {"rate": "abc", "other": 1})
    assert len(told.value.faults) == 3
    assert not list(project.root.glob("*out*"))


def test_the_source_is_never_the_output(project, notebook):
    path = notebook("x = 1")
    with pytest.raises(SpecificationError, match="overwritten"):
        run_notebook(project, path, path)
    with pytest.raises(FileNotFoundError, match=r"none\.ipynb"):
        run_notebook(project, "none.ipynb", project.root / "out.ipynb")
    (project.root / "text.ipynb").write_text("no notebook")
    with pytest.raises(SpecificationError, match="not a notebook"):
        run_notebook(project, "text.ipynb", project.root / "out.ipynb")


def test_a_failing_cell_is_told_with_its_number_its_lines_and_the_way_to_it(project, notebook):
    path = notebook("x: float = 1.0", "a = 1\nb = 0\nc = x / b\nd = 2")
    with pytest.raises(StepFailed) as told:
        run_notebook(project, path, project.root / "out.ipynb", {"x": 2})
    assert str(told.value) == (
        "out.ipynb, cell [3]:\n    a = 1\n    b = 0\n    c = x / b\nZeroDivisionError: float division by zero\n"
        f"Open it at that state: mlops-nb notebook debug {project.root / 'out.ipynb'}"
    )
    assert "ZeroDivisionError" in (project.root / "out.html").read_text(), "the page is there too"


@pytest.mark.parametrize(("raised", "kind"), [
    ("mlops_nb.core.records.GateClosed('not now')", GateClosed),
    ("mlops_nb.core.records.PeopleNeeded('not now')", PeopleNeeded),
    ("PermissionError('not now')", GateClosed),
])  # fmt: skip
def test_a_gate_that_closed_is_no_failure(project, notebook, raised, kind):
    with pytest.raises(GateClosed, match="not now") as told:
        run_notebook(project, notebook("import mlops_nb.core.records", f"raise {raised}"), project.root / "out.ipynb", report=False)
    assert type(told.value) is kind


def test_leaving_with_success_is_success_and_with_a_code_is_none(project, notebook):
    run_notebook(project, notebook("x = 1", "import sys; sys.exit(0)"), project.root / "out.ipynb", report=False)
    with pytest.raises(StepFailed, match="SystemExit: 3"):
        run_notebook(project, notebook("x = 1", "import sys; sys.exit(3)"), project.root / "out.ipynb", report=False)


def test_the_kernel_is_told_the_settings_in_force(project, notebook):
    settings = project.model_copy(update={"user": "ada", "persona": "administrator"})
    path = notebook("from mlops_nb.core.settings import load_settings", "s = load_settings()\nprint(s.user, s.persona, s.root)")
    assert printed(run_notebook(settings, path, project.root / "out.ipynb", report=False).path) == f"ada administrator {project.root}\n"


def test_runs_in_threads_have_folders_and_variables_of_their_own(project, notebook):
    path = notebook("n: int = 0", "import os, time\ntime.sleep(0.3)\nprint(n, os.environ['NUMBER'], os.path.basename(os.getcwd()))")
    before = os.getcwd(), dict(os.environ)

    def one(number: int) -> str:
        folder = project.root / f"folder{number}"
        folder.mkdir()
        output = project.root / f"out{number}.ipynb"
        return printed(run_notebook(project, path, output, {"n": number}, folder, False, variables={"NUMBER": str(number)}).path)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(4))) == [f"{n} {n} folder{n}\n" for n in range(4)]
    assert (os.getcwd(), dict(os.environ)) == before


def test_a_run_can_be_followed_and_stopped(project, notebook):
    path, stop, seen = notebook("import time", *["time.sleep(0.1)"] * 3, "time.sleep(60)"), threading.Event(), []

    def follow(done: int, cells: int) -> None:
        seen.append((done, cells))
        if done == 4:
            stop.set()

    with pytest.raises(KeyboardInterrupt):
        run_notebook(project, path, project.root / "out.ipynb", stop=stop, on_cell=follow, log=project.root / "log", report=False)
    assert seen == [(n, 5) for n in range(5)]
    assert "cell 5 of 5 starts: time.sleep(60)" in (project.root / "log").read_text()


def test_what_the_run_was_is_in_the_executed_copy_but_no_credentials(project, notebook):
    variables = {"API_TOKEN": "hush-1", "TRACKING": "https://ada:hush-2@host/", "MINE": "hush-3", "PLAIN": "told"}
    path = notebook("from mlops_nb.core.secrets import Secret\nlogin: Secret = 'env:MINE'", "len(login.get_secret_value())")
    done = run_notebook(project, path, project.root / "out.ipynb", cwd=project.root, variables=variables, report=False)
    run = json.loads(done.path.read_text())["metadata"]["mlops_nb"]
    assert (run["cwd"], run["kernel"], run["variables"]["PLAIN"]) == (str(project.root), "python3", "told")
    assert "hush" not in done.path.read_text()


def test_a_notebook_can_run_a_notebook(project, notebook):
    inner = notebook("x: int = 1", "print('inner', x)", name="inner.ipynb")
    code = f"done = run_notebook(load_settings(), {str(inner)!r}, 'inner-out.ipynb', {{'x': 5}}, report=False)\nprint(done.path.name)"
    outer = notebook("from mlops_nb.core.notebook import run_notebook\nfrom mlops_nb.core.settings import load_settings", code)
    done = run_notebook(project, outer, project.root / "out.ipynb", report=False)
    assert printed(done.path) == "inner-out.ipynb\n"
    assert printed(project.root / "inner-out.ipynb") == "inner 5\n"
