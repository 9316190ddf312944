"""The folder of a batch job: what was asked for, which mini batches are finished, how it stands.

`job.json` and `plan.jsonl` are written once; `journal.jsonl` gets one line per finished mini batch, after its parts are on the disk;
`status.json` and `errors.jsonl` are for people. What the journal does not name has not happened.
"""

import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_nb.core.files import read_lines, write_file


@dataclass(frozen=True)
class Job:
    """What was asked for; nothing of it changes any more."""

    id: str
    environment: str
    endpoint: str  # empty: scored without one
    deployment: str
    model: str  # address of the model version, or where the model was taken from
    path: str  # folder of the model's files
    data: str  # folder, file, glob or fsspec address
    output: str  # folder or fsspec address
    form: str = "csv"  # csv or parquet
    mini_batch_size: int = 10  # files
    workers: int = 1  # processes
    error_threshold: int = -1  # failed files that are tolerated; -1: any number
    max_retries: int = 3
    timeout: int = 30  # seconds for one mini batch
    action: str = "append_row"  # or summary_only
    file_name: str = "predictions.csv"
    logging_level: str = "info"
    variables: dict[str, str] = field(default_factory=dict)  # of the worker processes
    script: dict[str, str] | None = None  # code (folder), scoring_script (file in it); None: MLflow's own way
    python: str = ""  # interpreter of the deployment's own environment; empty: this one
    fingerprint: str = ""  # of all above and of the input's files: the same again goes on with the same job
    created: str = ""  # ISO 8601, UTC
    user: str = ""

    @property
    def uri(self) -> str:
        """Address in the ledger: `batch:dev.20261121-101500-a1b2c3`."""
        return f"batch:{self.environment}.{self.id}"


@dataclass(frozen=True)
class Status:
    """How a job stands."""

    state: str = "running"  # or done, failed, stopped
    files: int = 0
    files_done: int = 0  # scored or failed
    failed: int = 0  # files of which something could not be scored
    rows: int = 0  # of the output
    retries: int = 0
    rows_per_second: float = 0.0  # since this process took the job up
    seconds_left: float | None = None
    seconds: float = 0.0  # of work, over all processes that had the job
    message: str = ""  # why it failed, or is stopped
    result: str = ""  # the file or folder with the predictions
    pid: int = 0  # of the process that has the job
    started: float = 0.0  # that process's time of creation
    at: str = ""


def save_job(folder: Path, job: Job) -> None:
    """Write what was asked for."""
    write_file(folder / "job.json", json.dumps(dataclasses.asdict(job), indent=1))


def load_job(folder: Path) -> Job:
    """Read what was asked for; raises `FileNotFoundError` where there is no job."""
    path = folder / "job.json"
    if not path.is_file():
        raise FileNotFoundError(f"No batch job in {folder}. `mlops-nb batch list` shows the jobs there are.")
    return Job(**json.loads(path.read_text()))


def save_status(folder: Path, status: Status) -> None:
    """Write how a job stands, for whoever looks; not flushed to the disk, as the journal is what counts."""
    beside = folder / f".status.{os.getpid()}"
    beside.write_text(json.dumps(dataclasses.asdict(status), indent=1))
    os.replace(beside, folder / "status.json")


def load_status(folder: Path) -> Status:
    """Read how a job stands; one whose process is gone without a word is stopped."""
    path = folder / "status.json"
    status = Status(**json.loads(path.read_text())) if path.is_file() else Status("stopped", message="it has not begun")
    if status.state == "running" and not is_alive(status.pid, status.started):
        return dataclasses.replace(status, state="stopped", pid=0, seconds_left=None, message="its process was killed")
    return status


def is_alive(pid: int, started: float) -> bool:
    """Say whether a process is still the one that was started then."""
    import psutil

    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False


@dataclass(frozen=True)
class Finished:
    """One line of the journal: a mini batch that needs no further work."""

    number: int  # of the mini batch
    parts: list[str]  # files in parts/
    rows: int  # of the output
    failed: list[dict[str, Any]]  # file, reason; count, where one entry stands for several files
    retries: int = 0


def read_journal(folder: Path) -> dict[int, Finished]:
    """Read the finished mini batches, by number."""
    fields = {f.name for f in dataclasses.fields(Finished)}
    lines = [{k: v for k, v in line.items() if k in fields} for line in read_lines(folder / "journal.jsonl")]
    return {line["number"]: Finished(**line) for line in lines}


def write_journal(folder: Path, finished: Iterable[Finished]) -> None:
    """Write the journal anew."""
    write_file(folder / "journal.jsonl", "".join(json.dumps(dataclasses.asdict(one)) + "\n" for one in finished))


def write_errors(folder: Path, finished: Iterable[Finished]) -> None:
    """Write the failed files anew from the journal: whatever a killed process left there half told is put right."""
    lines = [json.dumps(entry) + "\n" for one in finished for entry in one.failed]
    write_file(folder / "errors.jsonl", "".join(lines))
