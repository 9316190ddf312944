"""Run a batch job: hand its mini batches to worker processes, try failed ones again, keep the journal, and tell how it goes.

One driver has a job at a time, as long as it holds the job's lock. A worker that dies, or takes longer than it may, costs its mini
batch one of its tries; the file it was at is told apart from the others. A driver that dies takes its workers with it, and the next
one goes on with the mini batches that the journal does not name.
"""

import dataclasses
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from mlops_nb.batch.files import File, fetch, shared
from mlops_nb.batch.job import (
    Finished,
    Job,
    Status,
    load_job,
    load_status,
    read_journal,
    save_status,
    write_errors,
    write_journal,
)
from mlops_nb.batch.output import make_result
from mlops_nb.batch.plan import Piece, Slice, load_plan, make_plan, save_plan
from mlops_nb.core.files import append_line, hold
from mlops_nb.core.records import StepFailed, now
from mlops_nb.scoring.script import show_model

_START = 600  # seconds for a worker to load its model
_TICK = 0.5  # seconds between two looks at times and tries
_DEATHS = 3  # of workers in a row that never got ready, and no mini batch finished meanwhile; or as often as one may be tried


class Stopped(Exception):
    """Somebody asked for the job to be stopped."""


@dataclasses.dataclass
class Worker:
    """A worker process, and what it is at."""

    number: int
    process: "subprocess.Popen[bytes]"
    connection: Connection
    since: float  # when it was started, or was handed its mini batch
    ready: bool = False
    piece: Piece | None = None
    at: str = ""  # the file that it told of last


def lay_job(folder: Path, job: Job, files: list[File]) -> None:
    """Write the mini batches of a new job; files that only this process sees are copied for the workers first."""
    staged = [dataclasses.replace(f, path=fetch(f.path, folder / "staged", f.name)) if not shared(f.path) else f for f in files]
    show_model(folder / "model", Path(job.path))
    save_plan(folder / "plan.jsonl", make_plan(job, staged))


def run_job(
    folder: Path,  # of the job
    show: Callable[[Status], None] | None = None,  # told about twice a second how it goes
    again: bool = False,  # True: mini batches in which files had failed are taken up once more
) -> Status:
    """Run a job to its end, or on from where it was; raises `StepFailed` when it fails, `BlockingIOError` when another has it."""
    job = load_job(folder)
    ends = load_status(folder).state != "running"  # whoever had it may just have told so, and ends its workers yet
    with hold(folder / "job.lock", wait=10 if ends else 0):
        (folder / "cancel").unlink(missing_ok=True)
        driver = Driver(folder, job, show or (lambda status: None), again)
        try:
            driver.score()
            status = driver.finish()
        except (StepFailed, Stopped, KeyboardInterrupt) as end:
            state = "failed" if isinstance(end, StepFailed) else "stopped"
            driver.tell(state, str(end) or "interrupted; to go on, resume it")
            raise
        finally:
            driver.close()
    return status


class Driver:
    """The process that has the job."""

    def __init__(self, folder: Path, job: Job, show: Callable[[Status], None], again: bool):
        self.folder, self.job, self.show = folder, job, show
        self.again = again  # mini batches with failed files are taken up once more
        self.began = time.monotonic()
        self.workers: list[Worker] = []
        self.made = self.deaths = 0  # workers made, and how many of the last ones died before they were ready
        self.tries: Counter[tuple[int, str]] = Counter()  # failed ones, by mini batch and file
        self.skip: dict[int, dict[str, str]] = {}  # files given up, by mini batch, with the reason
        self._read_state()

    def _read_state(self) -> None:
        for leftover in ("fetched", "result"):
            shutil.rmtree(self.folder / leftover, ignore_errors=True)
        (self.folder / "parts").mkdir(exist_ok=True)
        (self.folder / "logs").mkdir(exist_ok=True)
        self.pieces = load_plan(self.folder / "plan.jsonl")
        self.finished = read_journal(self.folder)
        there = {path.name for path in (self.folder / "parts").iterdir()}
        known = len(self.finished)
        self.finished = {number: one for number, one in self.finished.items() if there.issuperset(one.parts)}
        if self.again:
            self.finished = {number: one for number, one in self.finished.items() if not one.failed}
        if len(self.finished) < known:
            write_journal(self.folder, self.finished.values())
        write_errors(self.folder, self.finished.values())
        kept = {name for one in self.finished.values() for name in one.parts}
        for path in (self.folder / "parts").iterdir():
            if path.name not in kept:
                path.unlink()
        self.queue = deque(piece for piece in self.pieces if piece.number not in self.finished)
        self.before = load_status(self.folder).seconds
        self.unfinished = Counter(part.file for piece in self.pieces for part in piece.slices)
        self.files = len(self.unfinished)
        self.failed: set[str] = set()
        self.lost = self.rows = self.retries = self.fresh_rows = 0
        self.size = self.fresh_size = 0
        self.total = sum(piece.size for piece in self.pieces)
        for one in self.finished.values():
            self._count(self.pieces[one.number], one)

    # --- the loop ----------------------------------------------------------------------------------------------------

    def score(self) -> None:
        """Hand out mini batches until none is left."""
        self.tell()
        self._check_errors()
        told = time.monotonic()
        while self.queue or any(worker.piece for worker in self.workers):
            self._hand_out()
            for connection in wait([worker.connection for worker in self.workers], _TICK):
                self._listen(next(w for w in self.workers if w.connection is connection))
            self._check_times()
            if time.monotonic() - told >= _TICK:
                told = time.monotonic()
                self.tell()
                if (self.folder / "cancel").exists():
                    raise Stopped((self.folder / "cancel").read_text())

    def _hand_out(self) -> None:
        while len(self.workers) < min(self.job.workers, len(self.queue) + sum(bool(w.piece) for w in self.workers)):
            self.workers.append(self._start())
        for worker in self.workers:
            if worker.ready and not worker.piece and self.queue:
                piece = self.queue.popleft()
                skip = self.skip.get(piece.number, {})
                if all(part.file in skip for part in piece.slices):
                    self._accept(piece, [], 0, [])
                    continue
                worker.piece, worker.since, worker.at = piece, time.monotonic(), ""
                token = f"{piece.number:06d}-{secrets.token_hex(3)}"  # a part that a dying worker still writes is nobody's
                task = {"piece": dataclasses.asdict(piece), "token": token, "skip": skip, "alone": self._alone(piece)}
                with suppress(OSError):  # it has died: `_listen` finds out
                    worker.connection.send_bytes(json.dumps(task).encode())

    def _alone(self, piece: Piece) -> bool:
        """Whether its files are scored one by one, as one of them has failed before."""
        return any(number == piece.number for number, _ in self.tries)

    def _listen(self, worker: Worker) -> None:
        try:
            message = json.loads(worker.connection.recv_bytes())
        except (EOFError, OSError):
            self._buried(worker, f"the worker process died ({_how(worker.process)})")
            return
        if "broken" in message:
            raise StepFailed(f"{self.job.model}: {message['broken']}. The log: {self._log(worker)}")
        if "ready" in message:
            worker.ready, self.deaths = True, 0
        elif "at" in message:
            worker.at = message["at"]
            if worker.piece and not self.job.script and self._alone(worker.piece):  # of a second try, the time is that of one file
                worker.since = time.monotonic()
        elif "rows" in message and "done" not in message:
            if worker.piece and not worker.piece.slices[0].whole:
                worker.since = time.monotonic()  # of a large file, the time is that of one chunk of rows
        else:
            piece, worker.piece = worker.piece, None
            if piece:
                self._settle(piece, message)

    def _check_times(self) -> None:
        for worker in list(self.workers):
            limit = self.job.timeout if worker.ready else _START
            late = (worker.piece or not worker.ready) and time.monotonic() - worker.since > limit
            if late and not worker.connection.poll():  # what it has told while this process stood still is heard first
                what = "retry_settings.timeout" if worker.ready else "the limit for loading the model"
                self._buried(worker, f"took longer than {limit} s ({what})")

    # --- what comes back ---------------------------------------------------------------------------------------------

    def _buried(self, worker: Worker, reason: str) -> None:
        """Make an end of a worker that died or took too long; its mini batch has one try less."""
        self._end(worker)
        self.workers.remove(worker)
        if not worker.ready:
            self.deaths += 1
            if self.deaths >= max(_DEATHS, self.job.max_retries + 1):
                raise StepFailed(f"{self.job.model}: {reason} before it was ready, {self.deaths} times. The log: {self._log(worker)}")
            return
        piece = worker.piece
        if piece is None:
            return
        whole = bool(self.job.script) or not worker.at  # a script has all files of its mini batch in hand
        names = [part.file for part in piece.slices] if whole else [worker.at]
        if not whole and len(piece.slices) > 1 and not self._alone(piece):  # whose fault it is, the next try tells
            self.tries[piece.number, ""] += 1
            self.retries += 1
            self.queue.append(piece)
            return
        skip = self.skip.get(piece.number, {})
        failed = [{"file": name, "reason": reason, "again": True, "written": 1} for name in names if name not in skip]
        self._settle(piece, {"parts": [], "rows": 0, "failed": failed})

    def _settle(self, piece: Piece, answer: dict[str, Any]) -> None:
        """Take a mini batch as finished, or put it into the queue again, without the files that are given up."""
        again = False
        for entry in answer["failed"]:
            key = (piece.number, entry["file"])
            if entry["again"] and self.tries[key] < self.job.max_retries:
                self.tries[key] += 1
                again = True
            elif entry["written"]:  # some of its rows are in the part: once more, without it
                self.skip.setdefault(piece.number, {})[entry["file"]] = entry["reason"]
                again = True
        if not again:
            self._accept(piece, answer["parts"], answer["rows"], answer["failed"])
            return
        self.retries += 1
        for name in answer["parts"]:
            (self.folder / "parts" / name).unlink(missing_ok=True)
        self.queue.append(piece)

    def _accept(self, piece: Piece, parts: list[str], rows: int, failed: list[dict[str, Any]]) -> None:
        given_up: list[dict[str, Any]] = [{"file": file, "reason": reason} for file, reason in self.skip.get(piece.number, {}).items()]
        kept: list[dict[str, Any]] = [{key: entry[key] for key in ("file", "reason", "count") if key in entry} for entry in failed]
        entries = [_where(piece, entry) for entry in [*given_up, *kept]]
        tries = sum(count for (number, _), count in self.tries.items() if number == piece.number)
        one = Finished(piece.number, parts, rows, entries, tries)
        for entry in entries:
            append_line(self.folder / "errors.jsonl", entry)
        append_line(self.folder / "journal.jsonl", dataclasses.asdict(one) | {"at": now()})
        self.finished[piece.number] = one
        self.deaths = 0
        self.retries -= tries
        self._count(piece, one)
        self.fresh_rows += rows
        self.fresh_size += piece.size
        self._check_errors()

    def _count(self, piece: Piece, one: Finished) -> None:
        self.rows += one.rows
        self.retries += one.retries
        self.size += piece.size
        self.failed |= {entry["file"] for entry in one.failed if "count" not in entry}
        self.lost += sum(entry.get("count", 0) for entry in one.failed)
        for part in piece.slices:
            self.unfinished[part.file] -= 1

    def _check_errors(self) -> None:
        failed, limit = len(self.failed) + self.lost, self.job.error_threshold
        if 0 <= limit < failed:
            last = next((entry for one in reversed(self.finished.values()) for entry in one.failed), {})
            raise StepFailed(
                f"{failed} of {self.files} files failed, more than error_threshold ({limit}) allows. The last one, {last.get('file')}: "
                f"{last.get('reason')}\nAll of them: {self.folder / 'errors.jsonl'}. The results so far are kept: "
                f"mlops-nb batch results {self.job.id}")

    # --- telling -----------------------------------------------------------------------------------------------------

    def tell(self, state: str = "running", message: str = "", result: str = "") -> Status:
        """Write how the job stands."""
        import psutil

        seconds = time.monotonic() - self.began
        done = sum(left == 0 for left in self.unfinished.values())
        left = seconds * (self.total - self.size) / self.fresh_size if self.fresh_size and state == "running" else None
        alive = state == "running"
        status = Status(state, self.files, done, len(self.failed) + self.lost, self.rows, self.retries,
                        self.fresh_rows / max(seconds, 1e-9), left, self.before + seconds, message, result,
                        os.getpid() if alive else 0, psutil.Process().create_time() if alive else 0.0, now())
        save_status(self.folder, status)
        self.show(status)
        return status

    def finish(self) -> Status:
        """Make the result out of the parts."""
        self._end_all()
        status = self.tell()
        parts = [name for number in sorted(self.finished) for name in self.finished[number].parts]
        result = make_result(self.job, self.folder, parts, status)
        done = self.tell("done", result=result)
        for leftover in ("result", "staged", "parts"):
            shutil.rmtree(self.folder / leftover, ignore_errors=True)
        return done

    # --- processes ---------------------------------------------------------------------------------------------------

    def _start(self) -> Worker:
        ours, theirs = socket.socketpair()
        self.made += 1
        with theirs, (self.folder / "logs" / f"worker-{self.made}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 our own module
                [self.job.python or sys.executable, "-P", "-m", "mlops_nb.batch.work", str(self.folder), str(theirs.fileno())],
                pass_fds=[theirs.fileno()], start_new_session=True, stdin=subprocess.PIPE, stdout=log, stderr=log,
                env=_environment(self.job))
        return Worker(self.made, process, Connection(ours.detach()), time.monotonic())

    def _log(self, worker: Worker) -> Path:
        return self.folder / "logs" / f"worker-{worker.number}.log"

    def _end(self, worker: Worker) -> None:
        with suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)  # with whatever a script has started
        worker.process.wait()
        worker.connection.close()
        if worker.process.stdin:
            worker.process.stdin.close()

    def _end_all(self) -> None:
        for worker in self.workers:
            self._end(worker)
        self.workers = []

    def close(self) -> None:
        """Leave no process behind."""
        self._end_all()


def _where(piece: Piece, entry: dict[str, Any]) -> dict[str, Any]:
    """Say which rows of a large file are meant."""
    part: Slice | None = next((part for part in piece.slices if part.file == entry["file"]), None)
    if part is None or part.whole:
        return entry
    return entry | {"first_row": part.first, "rows": part.rows}


def _how(process: "subprocess.Popen[bytes]") -> str:
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(5)
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return "it closed its connection"


def _environment(job: Job) -> dict[str, str]:
    """Share the cores among the workers: a model that uses several threads gets its part of them, and no more."""
    import mlops_nb

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = str(max(1, cores // job.workers))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
    places = [str(Path(mlops_nb.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    ours = {**dict.fromkeys(names, threads), "MALLOC_ARENA_MAX": "2", "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, places))}
    return os.environ | ours | job.variables
