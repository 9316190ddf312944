"""Pipelines: continued, never repeated; one at a time; nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mlops_nb.core.pipeline import run_pipeline
from mlops_nb.core.plan import Request
from mlops_nb.core.records import GateClosed, SpecificationError, StepFailed
from mlops_nb.core.runs import list_runs, run_metrics
from mlops_nb.core.settings import Settings


def test_a_failed_step_is_told_with_its_cell_and_continued_after_it_is_mended(project, shop):
    pipeline = shop("x = 1\n# %%\ny = 0\nx / y")
    with pytest.raises(StepFailed, match=r"(?s)20_train\.ipynb, cell \[\d\].*ZeroDivisionError.*mlops-nb notebook debug"):
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
    again = run_pipeline(project, pipeline, {"rows": "5"}, Request(only="train"), progress=lambda step, *_: ran.append(step))
    assert again.id == first.id
    assert set(ran) == {"train"}
    with pytest.raises(SpecificationError, match="no run with these values has done"):
        run_pipeline(project, pipeline, {"rows": "6"}, Request(start="train"))
    assert len(list_runs(project)) == 1


def test_every_wrong_value_is_refused_before_the_first_step(project, shop):
    with pytest.raises(SpecificationError) as problem:
        run_pipeline(project, shop("pass"), {"rows": "many", "colour": "red"})
    assert len(problem.value.faults) == 2
    assert list_runs(project) == []


def test_independent_steps_run_at_the_same_time(project, lay):
    meet = "import pathlib, time\npathlib.Path(mine).touch()\nwhile not pathlib.Path(other).exists(): time.sleep(0.05)"
    jobs = "".join(
        f"  {a}: {{component: ../components/shop_10_meet.yml, inputs: {{mine: {a}, other: {b}}}}}\n"
        for a, b in [("left", "right"), ("right", "left")]
    )
    pipeline = lay(jobs, _10_meet=("mine: str\nother: str", meet))
    done = run_pipeline(project, pipeline, {}, jobs=2)
    assert done.state == "done"
    assert {path.name for path in done.notebooks.values()} == {"10_meet.left.ipynb", "10_meet.right.ipynb"}


def test_a_step_can_read_the_executed_notebook_of_another(project, lay):
    jobs = """\
  data: {component: ../components/shop_10_data.yml}
  tell: {component: ../components/shop_20_tell.yml, inputs: {page: "${{parent.jobs.data.outputs.executed}}"}}
"""
    tell = ("page: Input = ''\ntold: Output = ''", "open(told, 'w').write(open(page).read())")
    pipeline = lay(jobs, _10_data=("rows: int = 41", "print(rows + 1)"), _20_tell=tell)
    run = run_pipeline(project, pipeline, {})
    assert "42" in run.output("tell", "told").read_text()
    assert run_pipeline(project, pipeline, {}).id == run.id  # and nothing of that is run again


BRANCHES = """\
  good: {component: ../components/shop_10_data.yml, inputs: {rows: 1}}
  bad: {component: ../components/shop_20_train.yml, inputs: {gold: "${{parent.jobs.good.outputs.gold}}"}}
  other: {component: ../components/shop_30_use.yml, inputs: {gold: "${{parent.jobs.good.outputs.gold}}"}}
  behind: {component: ../components/shop_40_use.yml, inputs: {gold: "${{parent.jobs.bad.outputs.gold}}"}}
"""
BROKEN = ("gold_: str = ''\ngold: Input = ''\nmade: Output = ''", "1 / 0")


def test_a_failing_branch_does_not_lose_the_work_of_the_others(project, lay):
    use = ("gold: Input = ''", "print(open(gold).read())")
    jobs = BRANCHES.replace("bad.outputs.gold", "bad.outputs.made")
    data = ("rows: int = 1\ngold: Output = ''", "open(gold, 'w').write(str(rows))")
    pipeline = lay(jobs, _10_data=data, _20_train=BROKEN, _30_use=use, _40_use=use)
    with pytest.raises(StepFailed, match="20_train"):
        run_pipeline(project, pipeline, {}, jobs=1)
    [run] = list_runs(project)
    assert run.steps == {"good": "done", "bad": "failed", "other": "done"}


def test_a_step_is_tried_again_as_often_as_its_node_says(project, lay):
    jobs = '  flaky: {component: ../components/shop_10_flaky.yml, properties: {mlops_nb.max_retries: "2", mlops_nb.backoff: "0.1"}}\n'
    tries = "import pathlib\nseen = pathlib.Path('tries')\nseen.write_text(seen.read_text() + 'x' if seen.exists() else 'x')\n"
    pipeline = lay(jobs, _10_flaky=("x: int = 1", tries + "assert len(seen.read_text()) == 3"))
    ended: list[str] = []
    run = run_pipeline(project, pipeline, {}, progress=lambda step, state, seconds: ended.append(state))
    assert run.state == "done"
    assert ended == ["running", "again", "running", "again", "running", "done"]


def test_a_step_that_takes_too_long_ends_with_its_limit(project, lay):
    jobs = "  slow: {component: ../components/shop_10_slow.yml, limits: {timeout: 2}}\n"
    pipeline = lay(jobs, _10_slow=("x: int = 1", "import time\ntime.sleep(60)\nopen('through', 'w').close()"))
    with pytest.raises(TimeoutError, match="10_slow"):
        run_pipeline(project, pipeline, {})
    assert not (project.root / "through").exists()
    assert list_runs(project)[0].state == "failed"


SWEEP = """\
  tune:
    type: sweep
    trial: ../components/shop_10_tune.yml
    sampling_algorithm: grid
    search_space: {depth: {type: choice, values: [1, 2, 3]}}
    objective: {primary_metric: r2, goal: maximize}
    limits: {max_concurrent_trials: 2}
"""


def test_a_sweep_hands_on_the_outputs_of_its_best_trial(project, lay):
    source = "import mlflow\nwith mlflow.start_run(): mlflow.log_metric('r2', 1 - abs(depth - 2))\nopen(model, 'w').write(str(depth))"
    pipeline = lay(SWEEP, _10_tune=("depth: int = 0\nmodel: Output = ''", source))
    run = run_pipeline(project, pipeline, {}, jobs=2)
    assert run.output("tune", "model").read_text() == "2"
    assert {step: metrics["r2"] for step, metrics in run_metrics(project, run.id).items()} == {"tune/0": 0, "tune/1": 1, "tune/2": 0}
    assert run.notebooks["tune"].is_file()


def test_the_runs_id_is_mlflows_and_the_ledgers(project, shop):
    from mlops_nb.core import ledger

    source = "import mlflow\nfrom mlops_nb.core.settings import load_settings\nfrom mlops_nb.core.ledger import log\n"
    source += "with mlflow.start_run(): mlflow.log_metric('r2', 0.9)\nlog(load_settings(), 'look', 'shop:1')"
    run = run_pipeline(project, shop(source), {})
    assert run_metrics(project, run.id) == {"train": {"r2": 0.9}}
    [entry] = ledger.entries(project, action="look")
    assert entry.details["run"] == run.id


def _start(project: Settings) -> subprocess.Popen:
    return subprocess.Popen([Path(sys.executable).with_name("mlops-nb"), "run", "shop"], stderr=subprocess.PIPE, text=True)


def _wait_for(path: Path, text: str = "", seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < end, f"{path} {text} did not appear"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_second_run_at_the_same_time_is_told_who_is_at_work(project, shop, mlops_nb_command):
    shop("import time, pathlib\npathlib.Path('busy').touch()\ntime.sleep(600)")
    first = _start(project)
    _wait_for(project.root / "busy")
    second = mlops_nb_command("run", "shop")
    first.send_signal(signal.SIGINT)
    assert second.rc == 2
    assert f"held by process {first.pid}" in second.stderr
    assert first.wait(60) == 130


@pytest.mark.slow
def test_a_killed_run_leaves_a_readable_notebook_no_orphan_and_goes_on(project, shop, mlops_nb_command):
    wait = "import os, time\nprint(os.getpid(), file=open('busy', 'w'))\nif not os.path.exists('go'): time.sleep(600)"
    shop(f"print('bef' + 'ore')\n# %%\n{wait}")
    first = _start(project)
    _wait_for(project.root / "busy", "\n")
    _wait_for(list_runs(project)[0].folder / "20_train.ipynb", "before")
    kernel = int((project.root / "busy").read_text())
    os.kill(first.pid, signal.SIGKILL)
    first.wait()

    [killed] = list_runs(project)
    assert killed.state == "stopped"
    page = json.loads((killed.folder / "20_train.ipynb").read_text())
    assert any("before" in str(cell.get("outputs")) for cell in page["cells"])
    end = time.monotonic() + 60
    while psutil.pid_exists(kernel) and time.monotonic() < end:
        time.sleep(0.1)
    assert not psutil.pid_exists(kernel)

    (project.root / "go").touch()
    again = mlops_nb_command("run", "shop")
    assert again.rc == 0, again.stderr
    [done] = list_runs(project)
    assert (done.id, done.state) == (killed.id, "done")
    assert "data" not in [line.split()[0] for line in again.stdout.splitlines() if line.startswith("  ")]
