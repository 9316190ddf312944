"""Pipelines: continued, never repeated; one at a time; nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from mlops_nb.core.pipeline import list_runs, run_pipeline
from mlops_nb.core.records import GateClosed, SpecificationError, StepFailed
from mlops_nb.core.settings import Settings
from mlops_nb.core.specification import Pipeline, compile_components, read_pipeline

TYPES = "from mlops_nb.core.parameters import Input, Output\n"


@pytest.fixture
def shop(project: Settings):
    """Lay a scenario of two notebooks: `data` writes a number, `train` does what the test says."""

    def lay(train: str) -> Pipeline:
        folder = project.root / "nbs" / "scenarios" / "shop"
        for name, parameters, source in [
            ("10_data", TYPES + 'rows: int = 1\ngold: Output = ""', "open(gold, 'w').write(str(rows))"),
            ("20_train", TYPES + 'gold: Input = ""', train),
        ]:
            page = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "python3"}})
            page.cells = [nbformat.v4.new_markdown_cell(f"# {name}"), nbformat.v4.new_code_cell(parameters)]
            page.cells[1].metadata["tags"] = ["parameters"]
            page.cells += [nbformat.v4.new_code_cell(cell) for cell in source.split("\n# %%\n")]
            folder.mkdir(parents=True, exist_ok=True)
            nbformat.write(page, folder / f"{name}.ipynb")
        compile_components(project.root)
        job = project.root / "ci" / "pipelines" / "shop.yml"
        job.parent.mkdir(parents=True, exist_ok=True)
        job.write_text(
            "type: pipeline\ninputs: {rows: 3}\njobs:\n"
            '  data: {component: ../components/shop_10_data.yml, inputs: {rows: "${{parent.inputs.rows}}"}}\n'
            '  train: {component: ../components/shop_20_train.yml, inputs: {gold: "${{parent.jobs.data.outputs.gold}}"}}\n'
        )
        return read_pipeline(job)

    return lay


def test_a_failed_step_is_told_with_its_cell_and_continued_after_it_is_mended(project, shop):
    pipeline = shop("x = 1\n# %%\ny = 0\nx / y")
    with pytest.raises(StepFailed, match=r"(?s)20_train\.ipynb, cell \[\d\].*ZeroDivisionError.*jupyter lab"):
        run_pipeline(project, pipeline, {"rows": "5"})
    [failed] = list_runs(project)
    assert failed.state == "failed"
    assert (failed.folder / "20_train.html").is_file()

    done = run_pipeline(project, shop("assert open(gold).read() == '5'"), {"rows": "5"})
    assert (done.id, done.state) == (failed.id, "done")


def test_a_closed_gate_is_no_failure(project, shop):
    gate = "from mlops_nb.core.records import GateClosed\nraise GateClosed('the champion is better')"
    with pytest.raises(GateClosed, match="the champion is better"):
        run_pipeline(project, shop(gate), {})
    assert list_runs(project)[0].state == "closed"


def test_source_notebooks_are_never_written_to(project, shop):
    pipeline = shop("print(gold)")
    before = {path: path.read_bytes() for path in (project.root / "nbs").rglob("*.ipynb")}
    run_pipeline(project, pipeline, {})
    assert {path: path.read_bytes() for path in (project.root / "nbs").rglob("*.ipynb")} == before


def test_only_and_from_use_what_earlier_steps_left(project, shop):
    pipeline = shop("print(gold)")
    first = run_pipeline(project, pipeline, {"rows": "5"})
    ran: list[str] = []
    again = run_pipeline(project, pipeline, {"rows": "5"}, only="train", progress=lambda step, *_: ran.append(step))
    assert again.id == first.id
    assert set(ran) == {"train"}
    with pytest.raises(SpecificationError, match="no run with these values has done"):
        run_pipeline(project, pipeline, {"rows": "6"}, start="train")
    assert len(list_runs(project)) == 1


def test_every_wrong_value_is_refused_before_the_first_step(project, shop):
    with pytest.raises(SpecificationError) as problem:
        run_pipeline(project, shop("pass"), {"rows": "many", "colour": "red"})
    assert len(problem.value.faults) == 2
    assert list_runs(project) == []


def _start(project: Settings) -> subprocess.Popen:
    return subprocess.Popen([Path(sys.executable).with_name("mlops-nb"), "run", "shop"], stderr=subprocess.PIPE, text=True)


def _wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_second_run_at_the_same_time_is_told_who_is_at_work(project, shop, mlops_nb_command):
    shop("import time, pathlib\npathlib.Path('busy').touch()\ntime.sleep(60)")
    first = _start(project)
    _wait_for(project.root / "busy")
    second = mlops_nb_command("run", "shop")
    first.send_signal(signal.SIGINT)
    assert second.rc == 2
    assert f"held by process {first.pid}" in second.stderr
    assert first.wait(30) == 130


@pytest.mark.slow
def test_a_killed_run_leaves_a_readable_notebook_no_orphan_and_goes_on(project, shop, mlops_nb_command):
    wait = "import os, time\nopen('busy', 'w').write(str(os.getpid()))\nif not os.path.exists('go'): time.sleep(60)"
    shop(f"print('before')\n# %%\n{wait}")
    first = _start(project)
    _wait_for(project.root / "busy")
    time.sleep(0.2)
    kernel = int((project.root / "busy").read_text())
    os.kill(first.pid, signal.SIGKILL)
    first.wait()

    [killed] = list_runs(project)
    assert killed.state == "stopped"
    page = json.loads((killed.folder / "20_train.ipynb").read_text())
    assert any("before" in str(cell.get("outputs")) for cell in page["cells"])
    end = time.monotonic() + 5
    while psutil.pid_exists(kernel) and time.monotonic() < end:
        time.sleep(0.1)
    assert not psutil.pid_exists(kernel)

    (project.root / "go").touch()
    again = mlops_nb_command("run", "shop")
    assert again.rc == 0, again.stderr
    [done] = list_runs(project)
    assert (done.id, done.state) == (killed.id, "done")
    assert "data" not in [line.split()[0] for line in again.stdout.splitlines() if line.startswith("  ")]
