"""Bring a run home from Azure ML: executed notebooks, outputs and logs, in a folder like a local run's."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_nb.azure.follow import StepJob, refresh, step_jobs
from mlops_nb.azure.submit import keep_run
from mlops_nb.azure.workspace import explained, find, find_workspace
from mlops_nb.core.files import hold
from mlops_nb.core.ledger import log
from mlops_nb.core.notebook import write_report
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.runs import Run, find_run, load_run, log_file, note
from mlops_nb.core.settings import Settings
from mlops_nb.core.specification import Step, read_pipeline

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

# What ended a notebook at a gate, and the state of its step.
_GATES = {"PeopleNeeded": "waiting", "GateClosed": "closed", "PermissionError": "closed"}


def open_run(
    settings: Settings,
    client: "MLClient",
    name: str,  # of the run; of one that is in the run folders, enough of it
) -> Run:
    """Find a run by its name: in the run folders, or on Azure ML, where somebody else may have submitted it."""
    try:
        run = find_run(settings, name)
    except SpecificationError as problem:
        return _adopt(settings, client, name, problem)
    if run.backend != "azure":
        raise SpecificationError([f"{run.id} ran on this machine: mlops-nb runs show {run.id}"])
    return run


def _adopt(settings: Settings, client: "MLClient", name: str, problem: SpecificationError) -> Run:
    """Make a run folder for a job that was not submitted from here."""
    workspace = find_workspace(settings)
    with explained(f"look for {name}"):
        job = find(client.jobs.get, name)
    if job is None or not hasattr(job, "jobs"):
        raise SpecificationError([*problem.faults, f"No pipeline job '{name}' in workspace '{workspace.name}' either."])
    values = {key: getattr(value, "_data", value) for key, value in job.inputs.items()}
    steps = _steps(settings, job.experiment_name)
    needs = {step: list(steps[step].needs) if step in steps else [] for step in job.jobs}
    return keep_run(settings, workspace, job, values, needs)


def _steps(settings: Settings, scenario: str) -> dict[str, Step]:
    """Read the steps of a scenario; none if it is not one of this project."""
    path = settings.root / "ci" / "pipelines" / f"{scenario}.yml"
    return {step.name: step for step in read_pipeline(path).steps} if path.is_file() else {}


def fetch(settings: Settings, client: "MLClient", run: Run) -> tuple[Run, list[str]]:
    """Download what the ended steps of a run have made; returns the run, and the steps that were fetched now.

    A step is fetched once: what is here already stays as it is.
    """
    with hold(run.folder / "fetch.lock", wait=0):
        run, _ = refresh(client, run)
        steps, fetched = _steps(settings, run.scenario), []
        for name, job in step_jobs(client, run).items():
            if job.state not in ("", "running") and name not in run.outputs:
                _download(client, run, job, run.folder / _notebook_name(steps, name), steps.get(name))
                fetched.append(name)
    if fetched:
        log(settings, "fetch", f"run:{run.id}", steps=fetched)
    return load_run(run.folder), fetched


def _download(client: "MLClient", run: Run, job: StepJob, notebook: Path, step: Step | None) -> None:
    scratch = run.folder / ".fetch"  # on the same disk, so that everything can be moved into place
    shutil.rmtree(scratch, ignore_errors=True)  # of a fetch that was killed
    try:
        with explained(f"download {job.step} of {run.id}"):
            client.jobs.download(job.name, download_path=scratch, all=True)
        _take(run, job, scratch, notebook, step)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _notebook_name(steps: dict[str, Step], name: str) -> str:
    """Name an executed notebook as a local run does: like its source, which steps may share."""
    if name not in steps:
        return f"{name}.ipynb"
    source = steps[name].component.notebook
    alone = [step.component.notebook for step in steps.values()].count(source) == 1
    return source.name if alone else f"{source.stem}.{name}.ipynb"


def _take(run: Run, job: StepJob, downloaded: Path, notebook: Path, step: Step | None) -> None:
    """Move a step's downloads to where a local run has them, and note them in the journal."""
    declared, made = step.component.outputs if step else {}, []
    for port in sorted(downloaded.glob("named-outputs/*")):
        files = sorted(path for path in port.rglob("*") if path.is_file())
        if port.name == "executed" and files:
            _move(files[0], notebook)
            with suppress(Exception):  # the page is a convenience
                write_report(notebook)
        elif files:
            is_file = declared.get(port.name, {}).get("type", "uri_file") == "uri_file"
            _move(files[0] if is_file else port, run.output(job.step, port.name))
            made.append(port.name)
    if logs := sorted(downloaded.glob("artifacts/user_logs/*.txt"), key=lambda path: path.name != "std_log.txt"):
        _move(logs[0], log_file(run, job.step))
    state, message = _end(job, notebook)
    more: dict[str, Any] = {"notebook": notebook.name} if notebook.is_file() else {}
    more |= {"at": job.ended.isoformat()} if job.ended else {}
    note(run, job.step, state, seconds=job.seconds, message=message, outputs=made, **more)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)


def _end(job: StepJob, notebook: Path) -> tuple[str, str]:
    """Return how a step ended, and what it said: Azure ML calls a gate that waits a failure, the notebook knows better."""
    if job.state != "failed" or not notebook.is_file():
        return job.state, job.problem
    cells = json.loads(notebook.read_text()).get("cells", [])
    errors = [out for cell in cells for out in cell.get("outputs", []) if out.get("output_type") == "error"]
    if not errors:
        return job.state, job.problem
    name, text = errors[-1].get("ename", ""), errors[-1].get("evalue", "")
    if name in _GATES:
        return _GATES[name], text
    return "failed", f"{notebook.name}: {name}: {text}\nOpen it as it ran: mlops-nb notebook debug {notebook}"
