"""Note every few seconds what an endpoint's processes use: one line a process in its day's file, from which cost and load are read.

It runs beside the requests, in a thread of the host. A process that ends between two looks takes its last seconds with it.
"""

import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from mlops_nb.core.files import write_file
from mlops_nb.serving.lines import append

log = logging.getLogger("host")
EVERY = 15.0  # seconds between two samples; `usage_seconds` in endpoint.json says otherwise
DAYS = 62  # of samples that are kept: this month's cost and the one before
FOLDER = Path("logs/usage")
REACH = "reach.json"  # beside logs that are tidied: from when on they are whole


class Who(NamedTuple):
    """A process to be sampled."""

    deployment: str  # empty: the endpoint's own
    instance: str  # `blue-0`: the place, which outlives its processes; or front, host
    pid: int


class Usage:
    """The samples of one endpoint, and what has to be remembered from one to the next."""

    def __init__(self, endpoint: str, environment: str, folder: Path = FOLDER):
        self.about = {"endpoint": endpoint, "environment": environment}
        self.folder = folder
        self.day = ""
        self.started = time.time()
        self.before: dict[tuple[int, float], tuple[float, float]] = {}  # (pid, its start) -> monotonic time, CPU seconds until then
        self.counted: Counter[str] = Counter()  # deployment -> requests until then

    def sample(self, whos: Iterable[Who], answers: Mapping[str, int], at: float | None = None) -> None:
        """Append one line a process; what cannot be read or written is left out."""
        at, now = time.time() if at is None else at, time.monotonic()
        disk, memory = shutil.disk_usage("."), psutil.virtual_memory().total
        machine = {"cores": psutil.cpu_count() or 1, "memory_total": memory, "disk_used": disk.used, "disk_total": disk.total}
        children = _children()
        told = {"time": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")} | self.about
        lines = []
        before, self.before = self.before, {}
        grown = self._grown(answers)
        for who in whos:
            if used := self._use(who, before, children, (at, now)):
                used["requests"] = grown.pop(who.deployment, 0)  # on the deployment's first line
                lines.append(json.dumps(told | who._asdict() | used | machine).encode() + b"\n")
        day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
        try:
            if day > self.day:
                self.day = day
                tidy(self.folder, "since", at - DAYS * 86_400)
            if lines:
                append(self.folder / f"{day}.jsonl", lines)
        except OSError as problem:  # a full disk; the service goes on
            log.warning("%s usage samples are lost: %s", len(lines), problem)

    def _use(self, who: Who, before: Mapping[tuple[int, float], tuple[float, float]], children: Mapping[int, list[int]],
             clocks: tuple[float, float]) -> dict[str, Any]:
        """Measure a process and its children; empty for one that is gone."""
        (at, now), seconds, hours, resident = clocks, 0.0, 0.0, 0
        for pid in _family(who.pid, children):
            try:
                process = psutil.Process(pid)
                with process.oneshot():
                    times, born, memory = process.cpu_times(), process.create_time(), process.memory_info().rss
            except psutil.Error:
                continue
            since, used = before.get((pid, born), (now - max(0.0, at - max(born, self.started)), 0.0))
            self.before[pid, born] = now, times.user + times.system
            seconds += max(0.0, times.user + times.system - used)
            resident += memory
            hours = max(hours, (now - since) / 3600)  # of a clock that stands still while the machine sleeps
        if not resident:
            return {}
        return {"cpu_percent": round(seconds / max(hours * 36, 1e-9), 2), "cpu_seconds": round(seconds, 3), "memory_bytes": resident,
                "hours": round(hours, 6)}

    def _grown(self, answers: Mapping[str, int]) -> dict[str, int]:
        """Say how many requests each deployment answered since the last sample; a counter that fell began anew."""
        grown = {name: count - known if count >= (known := self.counted[name]) else count for name, count in answers.items()}
        self.counted = Counter(answers)
        return grown


def _children() -> dict[int, list[int]]:
    """Find the children of every process in one walk; the list of one process alone costs as much."""
    found: dict[int, list[int]] = {}
    for process in psutil.process_iter():
        try:
            found.setdefault(process.ppid(), []).append(process.pid)
        except psutil.Error:
            continue
    return found


def _family(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    everybody = [pid]
    for one in everybody:
        everybody += children.get(one, [])
    return everybody


def tidy(
    folder: Path,
    kind: str,  # which of the logs here: the key of the note
    until: float,  # seconds since 1970: files of days before that day go
) -> None:
    """Remove old files of days, and note from when on the log is whole."""
    oldest = datetime.fromtimestamp(until, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    old = [path for path in folder.glob("????-??-??*.jsonl") if path.name[:10] < f"{oldest:%Y-%m-%d}"]
    if old:
        note_reach(folder, kind, oldest)
    for path in old:
        path.unlink(missing_ok=True)


def note_reach(folder: Path, kind: str, since: datetime) -> None:
    """Note that nothing before a time is whole any more; an earlier note of a later time stays."""
    path = folder / REACH
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    told = since.astimezone(UTC).isoformat(timespec="seconds")
    if str(known.get(kind, "")) < told:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(known | {kind: told}))
