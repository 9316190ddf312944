"""Watch a run on Azure ML: each step's state as it changes, written into the run's journal as a local run writes it."""

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_nb.azure.submit import STEP_TAG
from mlops_nb.azure.workspace import explained, silent
from mlops_nb.core.access import require
from mlops_nb.core.ledger import log
from mlops_nb.core.runs import Run, load_run, note
from mlops_nb.core.settings import Settings

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

Progress = Callable[[str, str, float], None]  # step, its state (ours, or Azure ML's word before it runs), seconds

# Azure ML's states of a job, and ours; the states before a job runs have no counterpart in a journal.
STATES = {
    "Running": "running",
    "Finalizing": "running",
    "CancelRequested": "running",
    "Completed": "done",
    "Failed": "failed",
    "NotResponding": "failed",
    "Canceled": "stopped",
}
ENDS = ("Completed", "Failed", "NotResponding", "Canceled")


@dataclass(frozen=True)
class StepJob:
    """A step's own job on Azure ML."""

    step: str
    name: str  # Azure ML's
    status: str  # Azure ML's word
    started: dt.datetime | None
    ended: dt.datetime | None
    reused: bool  # the result of an earlier run
    problem: str

    @property
    def state(self) -> str:
        """Our word for its state; empty before it runs."""
        return "skipped" if self.reused and self.status == "Completed" else STATES.get(self.status, "")

    @property
    def seconds(self) -> float:
        """How long it has run."""
        if self.started is None or self.reused:
            return 0.0
        return ((self.ended or dt.datetime.now(dt.UTC)) - self.started).total_seconds()


def step_jobs(client: "MLClient", run: Run) -> dict[str, StepJob]:
    """Look at the jobs of a run's steps; a step that Azure ML has not made a job of yet is missing."""
    operations = client.jobs._runs_operations  # the public list leaves out when a job began and ended, and its error
    scope = (client.subscription_id, client.resource_group_name, str(client.workspace_name))
    with explained(f"look at {run.id}"):
        children = list(operations._operation.get_child(*scope, run.id))
    found = {}
    for child in sorted(children, key=lambda child: str(child.created_utc or "")):  # the last try of a step counts
        step = (child.tags or {}).get(STEP_TAG) or child.display_name or child.name
        if step in run.planned:
            reused = str((child.properties or {}).get("azureml.isreused", "")).lower() == "true"
            problem = getattr(getattr(child.error, "error", None), "message", "") or ""
            times = (child.start_time_utc, child.end_time_utc)
            found[step] = StepJob(step, str(child.run_id), str(child.status), *times, reused, problem)
    return found


def refresh(client: "MLClient", run: Run, progress: Progress = lambda step, state, seconds: None) -> tuple[Run, bool]:
    """Write into a run's journal what has changed on Azure ML since; returns the run, and whether its job has ended."""
    with explained(f"look at {run.id}"):
        job = client.jobs.get(run.id)
    jobs = step_jobs(client, run)
    for step, found in jobs.items():
        if found.state and found.state != _noted(run, step):
            _note(run, found)
            progress(step, found.state, found.seconds)
        elif not found.state:
            progress(step, found.status.lower(), 0.0)
    ended = job.status in ENDS
    if ended:
        _close(run, jobs, job)
    return load_run(run.folder), ended


def _noted(run: Run, step: str) -> str:
    """Return a step's state as Azure ML would say it: that a gate closed is only known from the fetched notebook."""
    state = run.steps.get(step, "")
    return "failed" if state in ("waiting", "closed") else state


def _note(run: Run, found: StepJob) -> None:
    at = found.started if found.state == "running" else found.ended
    more: dict[str, Any] = {"at": at.isoformat()} if at else {}
    if found.state != "running":
        more |= {"seconds": found.seconds, "message": found.problem}
    note(run, found.step, found.state, **more)


def _close(run: Run, jobs: dict[str, StepJob], job: Any) -> None:
    """Note how the steps ended of which the ended job says nothing; those behind a failed step were never begun."""
    if any(found.state == "failed" for found in jobs.values()):
        return
    state = "done" if job.status == "Completed" else "stopped"
    message = "" if state == "done" else f"Azure ML: the job is {job.status.lower()}; see {job.studio_url or job.name}"
    for step in run.planned:
        open_still = step not in jobs or jobs[step].state in ("", "running")
        if open_still and run.steps.get(step) != state:
            note(run, step, state, message=message)


def follow(
    client: "MLClient",
    run: Run,
    progress: Progress = lambda step, state, seconds: None,  # called whenever a step's state has changed
    every: float = 5.0,  # seconds between two looks
) -> Run:
    """Watch a run until its job has ended; an interrupt ends the watching, not the job."""
    shown: dict[str, str] = {}

    def tell(step: str, state: str, seconds: float) -> None:
        if shown.get(step) != state:
            shown[step] = state
            progress(step, state, seconds)

    while True:
        run, ended = refresh(client, run, tell)
        if ended:
            return run
        time.sleep(every)


def cancel(settings: Settings, client: "MLClient", run: Run) -> None:
    """Ask Azure ML to cancel a run's job, and wait until it has accepted."""
    require(settings, "train")
    with explained(f"cancel {run.id}"), silent():
        client.jobs.begin_cancel(run.id).result()
    log(settings, "cancel", f"run:{run.id}")
